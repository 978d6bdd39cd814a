"""How much of a worker's GPU is used, by all processes on it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch

__all__ = ["GpuUsage", "read_gpu_usage"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """Bytes of memory, and the share of the last moments in which kernels ran (``None``: the driver does not say)."""

    memory_used: int
    memory_total: int
    utilization: float | None


def read_gpu_usage(device: torch.device) -> GpuUsage | None:
    """Return the use of a GPU; ``None`` for a CPU, and for a GPU that does not answer."""
    if device.type != "cuda":
        return None
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError as error:
        log.debug("the memory of %s cannot be read: %s", device, error)
        return None
    return GpuUsage(total - free, total, _utilization(device))


def _utilization(device: torch.device) -> float | None:
    try:
        return torch.cuda.utilization(device) / 100
    # NVML's own errors: a slice of a GPU (MIG) has no such figure, nor has a container without the library.
    except Exception as error:
        log.debug("the utilisation of %s cannot be read: %s", device, error)
        return None
