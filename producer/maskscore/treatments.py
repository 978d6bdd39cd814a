"""The treatments' arithmetic as tables: what becomes of each of the 256 grey values inside and outside the mask.

A treatment changes every pixel by itself, so one table per side says all of it, exactly. The worker applies the
tables with NumPy, the report with Pillow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from maskscore.job import Treatment

__all__ = ["FILL", "GAIN", "Tables", "treatment_tables"]

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


def _uint8(value: float) -> int:
    return int(min(255.0, max(0.0, value)))
