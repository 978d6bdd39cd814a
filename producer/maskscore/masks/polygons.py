"""Polygons → pixels, to the bit as COCO draws them, or as OpenCV fills outlines, without NumPy.

:mod:`maskscore.masks.arrays` draws the same pixels with NumPy; a test holds both to each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

__all__ = ["drawable", "filled_outline_spans", "is_stray", "outline_steps", "polygon_runs"]

# COCO walks along the edges on a grid this much finer than the pixels.
_SCALE = 5


def drawable(polygons: Sequence[list[float]]) -> list[list[float]]:
    """Return the polygons without stray points and lines, which have no area; all of them where there are no others.

    Tools leave such a piece behind where an outline was cut or simplified.
    """
    return [polygon for polygon in polygons if not is_stray(polygon)] or list(polygons)


def is_stray(polygon: Sequence[float]) -> bool:
    """Say whether it is a point or a line of two points (or nothing), and so has no area."""
    return len(polygon) in (0, 2, 4)


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


def filled_outline_spans(polygon: Sequence[float], height: int, width: int) -> list[tuple[int, int]]:
    """Return the pixels of an outline that runs through the middles of pixels, as ``cv2.fillPoly`` takes them.

    ``polygon`` is a flat ``[x1, y1, x2, y2, …]`` with (0, 0) in the middle of the first pixel; each point is moved to
    the nearest pixel. Inside are the pixels under the edges (of each step along an edge's longer direction the one that
    is nearest to it: 8-connected lines), and those that an odd number of edges lies above. The spans are half open,
    count down the columns, and are in no order and may overlap.

    Of two pixels that are equally near to an edge it takes that on the side of the edge's left end, as OpenCV's
    ``LineIterator`` does (``modules/imgproc/src/drawing.cpp``). What reaches over the image's border is cut off there;
    OpenCV cuts edges off first, and may then draw their last pixels one row or column beside.
    """
    points = [(math.floor(x + 0.5), math.floor(y + 0.5)) for x, y in zip(polygon[0::2], polygon[1::2], strict=True)]
    spans = []
    toggles: dict[int, list[int]] = {}
    for start, end in pairwise([*points, *points[:1]]):
        (xs, ys), (xe, ye) = sorted((start, end))
        dx, dy, sign = xe - xs, abs(ye - ys), 1 if ye >= ys else -1
        for x in range(max(xs, 0), min(xe, width - 1) + 1):
            first, last = _rows_of_line(x - xs, dx, dy)
            low, high = sorted((ys + sign * first, ys + sign * last))
            low, high = max(low, 0), min(high, height - 1)
            if low <= high:
                spans.append((x * height + low, x * height + high + 1))
            if x < xe:
                row = ys - (-(ye - ys) * (x - xs) // dx)
                toggles.setdefault(x, []).append(min(max(row, 0), height))
    for x, rows in toggles.items():
        rows.sort()
        pairs = zip(rows[::2], rows[1::2], strict=True)
        spans += [(x * height + start, x * height + stop) for start, stop in pairs if start < stop]
    return spans


def _rows_of_line(step: int, dx: int, dy: int) -> tuple[int, int]:
    """Return the first and last row that a line from (0, 0) to (``dx``, ``dy``), both not negative, has in a column."""
    if dx >= dy:
        row = (2 * dy * step + dx - 1) // (2 * dx) if dx else 0
        return row, row
    if not dx:
        return 0, dy
    first = -((dy - 2 * dy * step - 1) // (2 * dx))
    behind = -((-dy - 2 * dy * step - 1) // (2 * dx))
    return max(first, 0), min(behind - 1, dy)
