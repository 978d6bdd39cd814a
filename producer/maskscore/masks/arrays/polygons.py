"""Polygons → runs, as COCO's own rasteriser or OpenCV's draws them, without walking along their edges.

:mod:`maskscore.masks.polygons` draws the same pixels without NumPy; a test holds both to each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from maskscore.masks.arrays.runs import Ints, Runs, union

__all__ = ["MOST_CROSSINGS", "TooMuchWork", "filled_outline_runs", "polygon_runs"]

# COCO draws outlines on a grid this much finer than the pixels, and looks where they pass from one column of pixels
# into the next: from 5c + 2 to 5c + 3 on that grid.
_SCALE, _BEFORE = 5, 2
# A real outline crosses a column a few times; this is a thousand times each column of a large photo.
MOST_CROSSINGS = 2_000_000
# Crossings worked on at a time, so that memory does not grow with the mask's edges.
_PIECE = 1 << 18


class TooMuchWork(ValueError):  # noqa: N818 - says what it is
    """The polygons cross more columns of pixels than any outline of an object does."""


def polygon_runs(polygons: Sequence[npt.NDArray[np.float64]], height: int, width: int) -> Runs:
    """Return the pixels of the union of polygons as column-major runs.

    Each polygon is COCO's flat ``[x1, y1, x2, y2, …]`` in pixels of an image of ``height`` by ``width``; its numbers
    are finite and below 10**8. The result equals ``rleFrPoly`` and ``rleMerge`` of the COCO API's ``maskApi.c``: each
    point where an outline passes from one column of pixels into the next toggles the column from there downwards.
    Where it does so is computed for each edge and column, not found by walking, so that time and memory depend on the
    columns inside the image and not on how long the edges are.

    Raises :class:`TooMuchWork` for more than :data:`MOST_CROSSINGS` such points.
    """
    corners = [np.trunc(_SCALE * part.reshape(-1, 2) + 0.5).astype(np.int64) for part in polygons]
    starts = np.concatenate(corners)
    ends = np.concatenate([np.roll(part, -1, axis=0) for part in corners])
    owners = np.repeat(np.arange(len(corners)), [len(part) for part in corners])
    left, right = np.minimum(starts[:, 0], ends[:, 0]), np.maximum(starts[:, 0], ends[:, 0])
    first = np.maximum(-((_BEFORE - left) // _SCALE), 0)
    last = np.minimum((right - _BEFORE - 1) // _SCALE, width - 1)
    total = _count_crossings(first, last)
    keys = np.empty(total, np.int64)
    done = 0
    for edges, columns in _crossings(first, last):
        rows = np.clip(_rows(starts[edges], ends[edges], columns), 0, height)
        # A row more than there are: a toggle below the image ends in its own column.
        keys[done : done + len(edges)] = (owners[edges] * width + columns) * (height + 1) + rows
        done += len(edges)
    keys.sort()
    # An outline is closed, so it crosses each column an even number of times: toggles make pairs, start and stop.
    pairs = keys.reshape(-1, 2)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    columns, rows = np.divmod(pairs, height + 1)
    places = columns % width * height + rows
    runs = Runs(places.ravel())
    return runs if len(corners) == 1 else union(runs)


def filled_outline_runs(polygons: Sequence[npt.NDArray[np.float64]], height: int, width: int) -> Runs:
    """Return the pixels of the union of outlines through the middles of pixels as column-major runs.

    The rule, which is OpenCV's ``fillPoly``, is that of :func:`maskscore.masks.filled_outline_spans`: the runs equal
    its spans. Arguments and errors are those of :func:`polygon_runs`.
    """
    corners = [np.floor(part.reshape(-1, 2) + 0.5).astype(np.int64) for part in polygons]
    starts = np.concatenate(corners)
    ends = np.concatenate([np.roll(part, -1, axis=0) for part in corners])
    owners = np.repeat(np.arange(len(corners)), [len(part) for part in corners])
    swap = ((starts[:, 0] > ends[:, 0]) | ((starts[:, 0] == ends[:, 0]) & (starts[:, 1] > ends[:, 1])))[:, None]
    starts, ends = np.where(swap, ends, starts), np.where(swap, starts, ends)
    first, last = np.maximum(starts[:, 0], 0), np.minimum(ends[:, 0], width - 1)
    total = _count_crossings(first, last)
    toggles, lows, stops = [], np.empty(total, np.int64), np.empty(total, np.int64)
    done = 0
    for edges, columns in _crossings(first, last):
        low, stop, crossing = _rows_under(starts[edges], ends[edges], columns)
        lows[done : done + len(edges)] = columns * height + np.clip(low, 0, height)
        stops[done : done + len(edges)] = columns * height + np.clip(stop, 0, height)
        done += len(edges)
        # Of two edges that meet in a column, one crosses it: each outline crosses it an even number of times.
        crosses = columns < ends[edges, 0]
        keys = (owners[edges] * width + columns) * (height + 1) + np.clip(crossing, 0, height)
        toggles.append(keys[crosses])
    pairs = np.sort(np.concatenate([*toggles, np.empty(0, np.int64)])).reshape(-1, 2)
    columns, rows = np.divmod(pairs, height + 1)
    places = columns % width * height + rows
    starts, ends = np.concatenate([lows, places[:, 0]]), np.concatenate([stops, places[:, 1]])
    inside = ends > starts
    return union(Runs.between(starts[inside], ends[inside]))


def _rows_under(starts: Ints, ends: Ints, columns: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the first row that an edge takes in a column, the one behind its last, and the row it crosses it above.

    ``starts`` and ``ends`` are ``(N, 2)`` whole points, from left to right; nothing is clipped to the image.
    """
    dx, rise = ends[:, 0] - starts[:, 0], ends[:, 1] - starts[:, 1]
    dy, step = np.abs(rise), columns - starts[:, 0]
    width = np.maximum(dx, 1)
    crossing = starts[:, 1] - (-rise * step // width)
    flat = (2 * dy * step + dx - 1) // (2 * width)
    nearest = np.maximum(-((dy - 2 * dy * step - 1) // (2 * width)), 0)
    farthest = np.minimum(-((-dy - 2 * dy * step - 1) // (2 * width)) - 1, dy)
    upright = dx == 0
    flat = np.where(upright, 0, flat)
    near = np.where(dx >= dy, flat, np.where(upright, 0, nearest))
    far = np.where(dx >= dy, flat, np.where(upright, dy, farthest))
    falls = rise < 0
    low = starts[:, 1] + np.where(falls, -far, near)
    high = starts[:, 1] + np.where(falls, -near, far)
    return low, high + 1, crossing


def _count_crossings(first: Ints, last: Ints) -> int:
    """Return in how many columns edges are, given the first and last column of each."""
    total = int(np.maximum(last - first + 1, 0).sum())
    if total > MOST_CROSSINGS:
        raise TooMuchWork(
            f"the outlines cross columns of pixels {total:,} times; at most {MOST_CROSSINGS:,} crossings are drawn"
        )
    return total


def _crossings(first: Ints, last: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield, a piece at a time, the edges and for each the columns from its first to its last."""
    crossed = np.flatnonzero(last >= first)
    counts = last[crossed] - first[crossed] + 1
    for some in np.split(np.arange(len(crossed)), _pieces(counts)):
        edges = np.repeat(crossed[some], counts[some])
        yield (
            edges,
            np.arange(len(edges)) - np.repeat(np.cumsum(counts[some]) - counts[some], counts[some]) + first[edges],
        )


def _pieces(counts: Ints) -> Ints:
    """Return where to cut the edges so that each piece has about ``_PIECE`` crossings."""
    return np.flatnonzero(np.diff(np.cumsum(counts) // _PIECE)) + 1


def _rows(starts: Ints, ends: Ints, columns: Ints) -> Ints:
    """Return the row from which each crossing toggles its column, not yet clipped to the image.

    ``starts`` and ``ends`` are ``(N, 2)`` corners on the fine grid. The arithmetic is that of ``rleFrPoly``, in double
    precision and in its order, since roundings decide about pixels.
    """
    steps = np.abs(ends - starts)
    steep = steps[:, 0] < steps[:, 1]
    backwards = np.where(steep, starts[:, 1] > ends[:, 1], starts[:, 0] > ends[:, 0])[:, None]
    (xs, ys), (xe, ye) = np.where(backwards, ends, starts).T, np.where(backwards, starts, ends).T
    before = _SCALE * columns + _BEFORE
    lowest = np.empty(len(columns), np.int64)

    flat = ~steep
    x, y, edge = xs[flat], ys[flat], before[flat]
    slope = (ye[flat] - y) / steps[flat, 0]
    two = [np.trunc(y + slope * step + 0.5) for step in (edge - x, edge + 1 - x)]
    lowest[flat] = np.minimum(*two)

    x, y, edge = xs[steep], ys[steep], before[steep] + 1
    slope = (xe[steep] - x) / steps[steep, 1]
    rising = slope > 0
    # The first step on the other side of the crossing: about here, and exactly where the rounded sum says so.
    step = np.ceil((edge - 0.5 - x) / slope)
    for shift in (1, 1, 0, 0):
        over = ((x + slope * (step - shift) + 0.5) >= edge) == rising
        step = np.where(over, step - 1, step) if shift else np.where(over, step, step + 1)
    lowest[steep] = y + step.astype(np.int64) - 1
    return (lowest + _BEFORE) // _SCALE
