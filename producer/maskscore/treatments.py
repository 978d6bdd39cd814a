"""The arithmetic of crops: what a treatment does to each grey value, and which part of a crop the model sees.

A treatment changes every pixel by itself, so one table per side says all of it, exactly. The worker applies the
tables with NumPy, the report with Pillow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from maskscore.job import Treatment

__all__ = [
    "FILL",
    "GAIN",
    "Tables",
    "centre_offset",
    "resized_size",
    "surviving_part",
    "treatment_tables",
]

FILL: Final = 128
"""Grey that stands for "not part of the mask", and behind transparent pixels."""

GAIN: Final = 1.05
"""Factor for the pixels inside the mask."""


@dataclass(frozen=True, slots=True)
class Tables:
    """256 bytes each: the new value of a channel by its old one."""

    inside: bytes
    outside: bytes


def treatment_tables(treatment: Treatment, alpha: float) -> Tables | None:
    """Return the tables of a treatment, or ``None`` for ``raw_crop``, which changes nothing.

    ``original``: outside 128, inside × 1.05. ``soft_mask``: outside v × (1 − alpha) + 128 × alpha, inside × 1.05.
    Computed in double precision, clipped to 0 … 255, truncated.
    """
    if treatment == "raw_crop":
        return None
    inside = bytes(_uint8(value * GAIN) for value in range(256))
    if treatment == "original":
        return Tables(inside, bytes([FILL]) * 256)
    return Tables(inside, bytes(_uint8(value * (1 - alpha) + FILL * alpha) for value in range(256)))


def resized_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Return a crop's ``(width, height)`` after torchvision's ``Resize(size)``: its short side becomes ``size``."""
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def surviving_part(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """Return what survives open_clip's transform of a crop: ``(left, top, right, bottom)`` in the crop's pixels.

    The transform is torchvision's ``Resize(size)`` and ``CenterCrop(size)``; resizing this part alone to ``size`` ×
    ``size`` gives the same picture, but for the rounding and clipping between Pillow's two passes, whose order Pillow
    chooses by the sizes.
    """
    resized_width, resized_height = resized_size(width, height, size)
    left, top = centre_offset(resized_width, size), centre_offset(resized_height, size)
    across, down = width / resized_width, height / resized_height
    # Pillow refuses a box that is too large in its last digit.
    return (
        left * across,
        top * down,
        min((left + size) * across, float(width)),
        min((top + size) * down, float(height)),
    )


def centre_offset(length: int, size: int) -> int:
    """Return where torchvision's ``CenterCrop(size)`` starts along a side; it rounds a half to the even number."""
    return round((length - size) / 2.0)


def _uint8(value: float) -> int:
    return int(min(255.0, max(0.0, value)))
