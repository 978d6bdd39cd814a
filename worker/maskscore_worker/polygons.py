"""Polygons → runs, to the bit as COCO's own rasteriser draws them, without walking along their edges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from maskscore_worker.runs import Runs, union

__all__ = ["MOST_CROSSINGS", "TooMuchWork", "polygon_runs"]

# COCO draws outlines on a grid this much finer than the pixels, and looks where they pass from one column of pixels
# into the next: from 5c + 2 to 5c + 3 on that grid.
_SCALE, _BEFORE = 5, 2
# A real outline crosses a column a few times; this is a thousand times each column of a large photo.
MOST_CROSSINGS = 2_000_000
# Crossings worked on at a time, so that memory does not grow with the mask's edges.
_PIECE = 1 << 18

Ints = npt.NDArray[np.int64]


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
    crossed = np.flatnonzero(last >= first)
    counts = last[crossed] - first[crossed] + 1
    total = int(counts.sum())
    if total > MOST_CROSSINGS:
        raise TooMuchWork(
            f"the outlines cross columns of pixels {total:,} times; at most {MOST_CROSSINGS:,} crossings are drawn"
        )
    keys = np.empty(total, np.int64)
    done = 0
    for some in np.split(np.arange(len(crossed)), _pieces(counts)):
        edges = np.repeat(crossed[some], counts[some])
        columns = np.arange(len(edges)) - np.repeat(np.cumsum(counts[some]) - counts[some], counts[some]) + first[edges]
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
    runs = Runs(places[:, 0], places[:, 1])
    return runs if len(corners) == 1 else union(runs)


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
