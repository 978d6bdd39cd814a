"""Chooses the precision of the image tower."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, Literal

import torch

from maskscore.errors import SettingsError
from maskscore.settings import Precision
from maskscore_worker.model.split_product import can_split

__all__ = ["BF16_ERROR", "DTYPES", "FP16_MOST", "ImagePrecision", "choose_precision", "cpu_has_bf16", "precisions_of"]

log = logging.getLogger(__name__)

BF16_ERROR: Final = (
    "bf16 moves a mask's probabilities; measured over 15 views, by up to 0.07 at a logit_scale of 16 and 0.25 at 100, "
    "for 1 mask in 40 there by more than 0.03"
)
"""``python -m bench precision``, 100 masks of COCO photos, the demo model; see docs/explanation/performance.md."""
DTYPES = {"fp32": torch.float32, "mixed": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
FP16_MOST: Final = 65_504 / 4
"""Largest value of a layer on known crops with which a model is served in fp16, whose largest is 65,504."""
ImagePrecision = Literal["fp32", "mixed", "fp16", "bf16"]
# From Volta on fp16 has units of its own.
_FP16_CAPABILITY: Final = (7, 0)
_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}


def choose_precision(setting: Precision, device: torch.device) -> ImagePrecision:
    """Return what ``MASKSCORE_PRECISION`` means on this device.

    ``auto`` is fp16 on a GPU that has units for it, and fp32 elsewhere: bf16 only where it was asked for. What bf16
    means is logged, and that it is slow where the processor does not have it (on a CPU, AVX512-BF16 or AMX).

    Raises :class:`~maskscore.errors.SettingsError` for fp16 on a CPU, and for ``mixed`` elsewhere than on one with AMX.
    """
    on_gpu = device.type == "cuda"
    if setting == "fp16" and not on_gpu:
        raise SettingsError(
            f"MASKSCORE_PRECISION=fp16 is for GPUs; on {device} it is slower than fp32. Set it to `auto` (fp16 on "
            "GPUs, fp32 on CPUs) or to `fp32`."
        )
    if setting == "mixed" and (on_gpu or not can_split()):
        raise SettingsError(
            f"MASKSCORE_PRECISION=mixed is for CPUs with AMX; {'GPUs have' if on_gpu else 'this one has'} no such "
            "product. Set it to `auto` (fp16 on GPUs, fp32 on CPUs) or to `fp32`."
        )
    native = torch.cuda.is_bf16_supported() if on_gpu else device.type == "cpu" and cpu_has_bf16()
    if setting == "bf16":
        log.warning("MASKSCORE_PRECISION=bf16: %s", BF16_ERROR)
        if not native:
            log.warning("%s has no bf16 arithmetic of its own: MASKSCORE_PRECISION=fp32 would be faster", device)
    elif setting == "auto" and on_gpu:
        return "fp16" if torch.cuda.get_device_capability(device) >= _FP16_CAPABILITY else "fp32"
    elif setting == "auto" and native:
        log.info("MASKSCORE_PRECISION=auto is fp32; bf16 would be faster on %s: %s", device, BF16_ERROR)
    return "fp32" if setting == "auto" else setting


def precisions_of(device: torch.device) -> tuple[ImagePrecision, ...]:
    """Return the precisions that can be asked for on this device; fp32 is the first."""
    if device.type == "cuda":
        return ("fp32", "fp16", "bf16")
    return ("fp32", "mixed", "bf16") if can_split() else ("fp32", "bf16")


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether this CPU has AVX512-BF16 or AMX, by Linux's list of its flags; ``False`` where there is none."""
    try:
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _CPU_FLAGS.isdisjoint(flags.split())
