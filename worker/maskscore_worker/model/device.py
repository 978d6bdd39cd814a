"""Chooses the device that a worker is pinned to."""

from __future__ import annotations

import torch

from maskscore.errors import SettingsError

__all__ = ["choose_device"]

_PREFERRED_GPU = 4


def choose_device(setting: str) -> torch.device:
    """Return the device that ``MASKSCORE_DEVICE`` means.

    ``auto`` is ``cuda:4`` where it exists, else the first GPU, else the CPU. Raises
    :class:`~maskscore.errors.SettingsError` that says which devices there are.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "auto":
        if not gpus:
            return torch.device("cpu")
        return torch.device("cuda", _PREFERRED_GPU if gpus > _PREFERRED_GPU else 0)
    try:
        device = torch.device(setting)
    except RuntimeError:
        device = None
    known = ["cpu", *(f"cuda:{index}" for index in range(gpus))]
    if device is not None and device.type == "cuda" and device.index is None:
        device = torch.device("cuda", 0)
    if device is None or str(device) not in known:
        raise SettingsError(f"MASKSCORE_DEVICE: there is no device {setting!r} here; there are {', '.join(known)}.")
    return device
