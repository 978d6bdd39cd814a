"""Polygons → pixels, to the bit as COCO draws them, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

__all__ = ["outline_steps", "polygon_runs"]

# COCO walks along the edges on a grid this much finer than the pixels.
_SCALE = 5


def outline_steps(polygon: Sequence[float]) -> float:
    """Return how many steps :func:`polygon_runs` takes around a polygon, more or less; infinite where it would not end.

    Each costs about a microsecond, and corners far outside of the image cost as any other.
    """
    if not all(map(math.isfinite, polygon)):
        return math.inf
    corners = list(zip(polygon[0::2], polygon[1::2], strict=True))
    closed = pairwise([*corners, *corners[:1]])
    return _SCALE * sum(max(abs(xe - xs), abs(ye - ys)) for (xs, ys), (xe, ye) in closed) + len(corners)


def polygon_runs(polygon: Sequence[float], height: int, width: int) -> list[int]:
    """Return one polygon's column-major run lengths, the first counting zeros; they add up to ``height * width``.

    ``polygon`` is COCO's flat ``[x1, y1, x2, y2, …]`` in pixels. A transcription of ``rleFrPoly`` in the COCO API's
    ``maskApi.c``: each point where the outline passes from one pixel column into the next toggles the column from
    there downwards.
    """
    toggles = []
    for (u0, v0), (u1, v1) in pairwise(_outline(polygon)):
        if u0 == u1:
            continue
        column = (min(u0, u1) + 0.5) / _SCALE - 0.5
        if column != math.floor(column) or not 0 <= column <= width - 1:
            continue
        row = math.ceil(min(max((min(v0, v1) + 0.5) / _SCALE - 0.5, 0.0), float(height)))
        toggles.append(int(column) * height + row)
    edges = [0, *sorted(toggles), height * width]
    return [end - start for start, end in pairwise(edges)]


def _outline(polygon: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Yield the outline's points on the fine grid, closed, one per step of each edge's longer direction."""
    corners = [
        (int(_SCALE * x + 0.5), int(_SCALE * y + 0.5)) for x, y in zip(polygon[0::2], polygon[1::2], strict=True)
    ]
    for (xs, ys), (xe, ye) in pairwise([*corners, corners[0]]):
        dx, dy = abs(xe - xs), abs(ye - ys)
        steep = dx < dy
        backwards = ys > ye if steep else xs > xe
        if backwards:
            xs, ys, xe, ye = xe, ye, xs, ys
        steps = max(dx, dy)
        slope = ((xe - xs) if steep else (ye - ys)) / steps if steps else 0.0
        for step in range(steps, -1, -1) if backwards else range(steps + 1):
            yield (int(xs + slope * step + 0.5), ys + step) if steep else (xs + step, int(ys + slope * step + 0.5))
