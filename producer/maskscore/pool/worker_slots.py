"""Slots for workers: a device each, or a share of the CPU's cores."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from maskscore.errors import SettingsError
from maskscore.schema import DEFAULT_MODEL_NAME

__all__ = [
    "WorkerSlot",
    "available_cores",
    "choose_slots",
    "cpu_slots",
    "device_slots",
    "find_devices",
    "slots_of_models",
]

_ASK = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
_ASK_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class WorkerSlot:
    """A slot for one worker: the environment variables that pin it, its cores (empty: all), and the model's name."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    cores: frozenset[int] = frozenset()
    model: str = DEFAULT_MODEL_NAME


def find_devices() -> list[str]:
    """Return ``cuda:0``, ``cuda:1`` ..., or ``cpu`` where PyTorch sees no GPU.

    A process of its own asks PyTorch, so that this one needs no gigabyte and holds no context on a GPU. Raises
    :class:`~maskscore.errors.SettingsError` with what it said where it fails.
    """
    command = [sys.executable, "-c", _ASK]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False)
        said = asked.stdout.strip().splitlines() or [""]
        if asked.returncode == 0 and said[-1].isdecimal():
            return [f"cuda:{index}" for index in range(int(said[-1]))] or ["cpu"]
        reason = (asked.stderr.strip().splitlines() or said)[-1]
    except subprocess.TimeoutExpired:
        reason = f"no answer within {_ASK_TIMEOUT_S:g} s"
    raise SettingsError(f"PyTorch could not say which devices there are: {reason}. Name them: --devices cuda:0,cuda:1.")


def choose_slots(devices: str | None, workers: int | None) -> list[WorkerSlot]:
    """Return the slots for ``workers`` CPU workers, or for devices: ``cuda:0,cuda:1``, ``cpu``, ``auto`` (``None``).

    Raises :class:`~maskscore.errors.SettingsError` as :func:`find_devices` and :func:`device_slots` do.
    """
    if workers is not None:
        return cpu_slots(workers, available_cores())
    named = [name.strip() for name in (devices or "auto").split(",") if name.strip()]
    if named == ["auto"]:
        named = find_devices()
    if named == ["cpu"]:
        return cpu_slots(1, available_cores())
    return device_slots(named)


def device_slots(devices: Iterable[str]) -> list[WorkerSlot]:
    """Return a slot per device; one that is named twice holds two workers.

    Raises :class:`~maskscore.errors.SettingsError` for what is no device's name.
    """
    slots = []
    for device in devices:
        if not re.fullmatch(r"cpu|cuda:\d+", device):
            raise SettingsError(f"--devices: {device!r} is no device. Give cuda:0,cuda:1 or the like, cpu, or auto.")
        slots.append(WorkerSlot(device, {"MASKSCORE_DEVICE": device}))
    return slots


def slots_of_models(slots: Sequence[WorkerSlot], weights: Mapping[str, str]) -> list[WorkerSlot]:
    """Return each slot once per model, of which ``weights`` has the folders by name."""
    return [
        replace(
            slot,
            name=f"{slot.name} {model}",
            environment={**slot.environment, "MASKSCORE_MODEL_NAME": model, "MASKSCORE_WEIGHTS": folder},
            model=model,
        )
        for model, folder in weights.items()
        for slot in slots
    ]


def available_cores() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_slots(count: int, cores: Sequence[int]) -> list[WorkerSlot]:
    """Divide the cores among ``count`` CPU workers: neighbours together, none shared, unless there are too few.

    Each worker computes with as many threads as it has cores, unless ``OMP_NUM_THREADS`` is set.
    """
    slots = []
    for index in range(count):
        if count <= len(cores):
            share = cores[index * len(cores) // count : (index + 1) * len(cores) // count]
        else:
            share = [cores[index % len(cores)]]
        threads = os.environ.get("OMP_NUM_THREADS") or str(len(share))
        environment = {"MASKSCORE_DEVICE": "cpu", "OMP_NUM_THREADS": threads}
        slots.append(WorkerSlot(f"cpu:{_span(share)}", environment, frozenset(share)))
    return slots


def _span(cores: Sequence[int]) -> str:
    whole = len(cores) > 1 and cores[-1] - cores[0] == len(cores) - 1
    return f"{cores[0]}-{cores[-1]}" if whole else "+".join(map(str, cores))
