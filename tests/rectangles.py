"""As many masks as a test needs, no two of them equal: equal ones are encoded once."""

from __future__ import annotations

from maskscore import Mask

__all__ = ["rectangles"]


def rectangles(count: int) -> list[Mask]:
    """Masks that differ, since equal ones are encoded once."""
    places = ((n % 50, n // 50 % 50, 30 + n // 2500) for n in range(count))
    return [
        Mask(id=str(n), segmentation=[[x, y, x + side, y, x + side, y + 30, x, y + 30]])
        for n, (x, y, side) in enumerate(places)
    ]
