"""In which precision the image tower computes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import torch

from maskscore.settings import Precision

__all__ = ["DTYPES", "choose_precision", "cpu_has_bf16"]

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def choose_precision(setting: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """Return what ``MASKSCORE_PRECISION`` means on this device.

    ``auto`` is bf16 on a GPU and on a CPU that multiplies bf16 itself (AVX512-BF16 or AMX), else fp32. bf16 where it
    was asked for and the processor does not have it is right and slow; that is logged.
    """
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else device.type == "cpu" and cpu_has_bf16()
    if setting == "auto":
        return "bf16" if native else "fp32"
    if setting == "bf16" and not native:
        log.warning("%s has no bf16 arithmetic of its own: MASKSCORE_PRECISION=fp32 would be faster", device)
    return setting


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this CPU has AVX512-BF16 or AMX, by Linux's list of its flags; ``False`` where there is none."""
    try:
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _CPU_FLAGS.isdisjoint(flags.split())
