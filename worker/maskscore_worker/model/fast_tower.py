"""The image tower as a worker runs it: the same features as open_clip's own forward, with less work."""

from __future__ import annotations

from typing import Any

import torch

from maskscore_worker.model.cpu_kernels import pack_layers
from maskscore_worker.model.simplification import simplify_tower

__all__ = ["fast_tower"]


def fast_tower(tower: Any, *, image_size: int, dtype: torch.dtype, device: torch.device, mixed: bool = False) -> Any:
    """Return the tower in its faster form, of ``dtype`` and on ``device``; ``tower`` itself is used up.

    ``tower`` is an fp32 image tower in evaluation on the CPU. Every step is tried on a picture of noise there, and
    taken back, with a warning, where features change: :func:`simplify_tower`, and on a CPU :func:`pack_layers`,
    to which ``mixed`` is given.
    """
    noise = torch.randn((1, 3, image_size, image_size), generator=torch.Generator().manual_seed(1))
    tower = simplify_tower(tower, noise).to(device=device, dtype=dtype)
    if device.type == "cpu":
        pack_layers(tower, noise.to(dtype), mixed=mixed)
    return tower
