"""Masks of which no two are equal, since equal ones are encoded once."""

from __future__ import annotations

from maskscore import Mask

__all__ = ["distinct_masks"]


def distinct_masks(count: int) -> list[Mask]:
    """Return ``count`` rectangular masks, no two of them equal."""
    places = ((n % 50, n // 50 % 50, 30 + n // 2500) for n in range(count))
    return [
        Mask(id=str(n), segmentation=[[x, y, x + side, y, x + side, y + 30, x, y + 30]])
        for n, (x, y, side) in enumerate(places)
    ]
