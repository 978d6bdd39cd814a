"""The connected components of a mask, found among its runs, without NumPy and SciPy.

The worker finds them among pixels (``scipy.ndimage.label``, in ``maskscore_worker.masks.regions``). A test holds both
to the same components in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from maskscore.masks.encoding import run_lengths
from maskscore.masks.polygons import drawable, filled_outline_spans, polygon_runs
from maskscore.schema import RLE, Box, Mask

__all__ = ["Part", "connected_parts", "counts_of", "foreground", "joined", "spans_of"]

Span = tuple[int, int]
"""Pixels inside a mask: first and behind the last, counted down the columns of the image."""


@dataclass(frozen=True, slots=True)
class Part:
    """One 8-connected component of a mask; its spans lie in one column each, in order."""

    spans: list[Span]
    area: int
    box: Box


def foreground(counts: Iterable[int]) -> list[Span]:
    """Return the spans of a mask from its run lengths, column-major, the first counting zeros."""
    spans = []
    position = 0
    for index, run in enumerate(counts):
        if index % 2 and run:
            spans.append((position, position + run))
        position += run
    return spans


def joined(spans: Iterable[Span]) -> list[Span]:
    """Return the union of spans, in order, none of them touching the next."""
    union: list[Span] = []
    for start, stop in sorted(spans):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(stop, union[-1][1]))
        else:
            union.append((start, stop))
    return union


def spans_of(mask: Mask, height: int, width: int) -> list[Span]:
    """Return the spans of a mask in an image of this size, none of them touching the next.

    Raises ValueError for compressed counts that are none.
    """
    if isinstance(mask.segmentation, RLE):
        return joined(foreground(run_lengths(mask.segmentation)))
    polygons = drawable(mask.segmentation)
    if mask.polygon_convention == "opencv":
        return joined(span for part in polygons for span in filled_outline_spans(part, height, width))
    return joined(span for part in polygons for span in foreground(polygon_runs(part, height, width)))


def counts_of(spans: Iterable[Span], pixels: int) -> list[int]:
    """Return the run lengths of spans in an image of so many pixels: column-major, the first counting zeros."""
    counts = []
    position = 0
    for start, stop in joined(spans):
        counts += [start - position, stop - start]
        position = stop
    return [*counts, pixels - position] if position < pixels else counts


def connected_parts(spans: Sequence[Span], height: int) -> list[Part]:
    """Return the 8-connected components, the largest first; of equal ones that which comes first, row by row.

    ``spans`` are in order; ``height`` is the image's. Runs in neighbouring columns that touch, also by a corner,
    belong together.
    """
    runs = _by_column(spans, height)
    parents = list(range(len(runs)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    behind = 0
    for index, (column, start, stop) in enumerate(runs):
        # The runs of the column before this one that end above this run touch none of those below it either.
        while runs[behind][0] < column - 1 or (runs[behind][0] == column - 1 and runs[behind][2] < start):
            behind += 1
        other = behind
        while other < index and runs[other][0] == column - 1 and runs[other][1] <= stop:
            parents[root(other)] = root(index)
            other += 1
    groups: dict[int, list[tuple[int, int, int]]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(root(index), []).append(run)
    ordered = sorted(groups.values(), key=lambda group: (-_area(group), min((run[1], run[0]) for run in group)))
    return [_part(group, height) for group in ordered]


def _by_column(spans: Sequence[Span], height: int) -> list[tuple[int, int, int]]:
    """Return ``(column, first row, row behind the last)`` of each run."""
    runs = []
    for start, stop in spans:
        while start < stop:
            column, row = divmod(start, height)
            end = min(stop, (column + 1) * height)
            runs.append((column, row, row + end - start))
            start = end
    return runs


def _area(group: list[tuple[int, int, int]]) -> int:
    return sum(stop - start for _, start, stop in group)


def _part(group: list[tuple[int, int, int]], height: int) -> Part:
    left, right = group[0][0], group[-1][0] + 1
    top, bottom = min(start for _, start, _ in group), max(stop for _, _, stop in group)
    spans = [(column * height + start, column * height + stop) for column, start, stop in group]
    return Part(spans, _area(group), (left, top, right - left, bottom - top))
