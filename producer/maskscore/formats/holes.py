"""A polygon with holes → RLE. COCO's polygons have none: what they draw twice is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from maskscore.formats.document import Size
from maskscore.formats.sought import Sought
from maskscore.job import RLE
from maskscore.masks import text_from_counts
from maskscore.polygons import outline_steps, polygon_runs

__all__ = ["rle_with_holes"]


def rle_with_holes(exterior: Sequence[float], holes: Sequence[Sequence[float]], size: Size, sought: Sought) -> RLE:
    """Return the pixels of a polygon less those of its holes, each drawn as COCO draws a polygon.

    ``exterior`` and ``holes`` are flat ``[x1, y1, x2, y2, ...]`` in pixels; ``size`` is the image's ``(height,
    width)``. Raises :class:`~maskscore.formats.MasksDocumentError` for outlines that are too long to be drawn, and for
    an image of too many pixels.
    """
    sought.check_pixels(*size)
    sought.unpack(size[0] * size[1])
    sought.outline(sum(outline_steps(ring) for ring in (exterior, *holes)))
    rings = [polygon_runs(ring, *size) for ring in (exterior, *holes)]
    return RLE(size=size, counts=text_from_counts(_first_without_others(rings)))


def _first_without_others(rings: Sequence[Sequence[int]]) -> list[int]:
    """Return the run lengths of what is in the first ring and in no other; all begin with zeros, of equal sums."""
    edges = sorted((place, ring) for ring, counts in enumerate(rings) for place in _edges(counts))
    inside = [False] * len(rings)
    in_holes = last = 0
    drawn = False
    result: list[int] = []
    for place, ring in edges:
        inside[ring] = not inside[ring]
        if ring:
            in_holes += 1 if inside[ring] else -1
        now = inside[0] and not in_holes
        if now != drawn:
            result.append(place - last)
            last, drawn = place, now
    return [*result, sum(rings[0]) - last]


def _edges(counts: Sequence[int]) -> Iterator[int]:
    """Yield the places where a mask begins or ends, in pixels from the start."""
    return accumulate(counts[:-1])
