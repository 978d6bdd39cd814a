"""Runs of a mask: COCO's counts → where pixels start and stop → bits inside their own box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maskscore.schema import Box, counts_from_text

__all__ = ["Runs", "bits_in_box", "bits_of_runs", "box_of_runs", "read_counts", "runs_of_bits", "union"]

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]

# COCO's text of run lengths: 48 added to each group of five bits, bit six set while more follow.
_FIRST, _MORE, _SIGN, _MOST_GROUPS = 48, 0x20, 0x10, 7


@dataclass(frozen=True, slots=True)
class Runs:
    """Pixels inside a mask, as places in column-major order (``column * height + row``).

    ``starts`` and ``stops`` are ``(N,)`` int64, half open, in rising order and without overlap; no run is empty.
    """

    starts: Ints
    stops: Ints

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int((self.stops - self.starts).sum())


def read_counts(counts: str | list[int], *, pixels: int) -> Runs:
    """Read COCO's run lengths, compressed text or a list, of a mask of so many pixels.

    Raises ValueError that says what is wrong: a damaged text (in the words of
    :func:`maskscore.schema.rle_text.counts_from_text`), a negative run, or runs that do not add up to ``pixels``.
    """
    lengths = _lengths_of_text(counts) if isinstance(counts, str) else _lengths_of_list(counts, pixels)
    if len(lengths) and lengths.min() < 0:
        raise ValueError(f"it has a negative run ({lengths.min()})")
    # No sum of so many 64-bit numbers overflows where each is a run of the image.
    fit = not len(lengths) or lengths.max() <= pixels
    total = int(lengths.sum()) if fit else sum(lengths.tolist())
    if total != pixels:
        raise ValueError(f"its runs add up to {total}, but the image has {pixels} pixels")
    ends = np.cumsum(lengths)
    starts, stops = ends[0:-1:2], ends[1::2]
    inside = stops > starts
    return Runs(starts[inside], stops[inside])


def union(runs: Runs) -> Runs:
    """Return runs that may overlap, in any order, as runs that do not."""
    if not len(runs.starts):
        return runs
    order = np.argsort(runs.starts, kind="stable")
    starts, stops = runs.starts[order], np.maximum.accumulate(runs.stops[order])
    apart = np.flatnonzero(starts[1:] > stops[:-1])
    return Runs(starts[np.concatenate([[0], apart + 1])], stops[np.concatenate([apart, [len(stops) - 1]])])


def box_of_runs(runs: Runs, height: int) -> Box:
    """Return the smallest box that holds the runs, XYWH. There is at least one run; ``height`` is the image's."""
    columns, last_columns = runs.starts // height, (runs.stops - 1) // height
    left, right = int(columns[0]), int(last_columns[-1])
    rows = runs.starts - columns * height
    if np.array_equal(columns, last_columns):
        top, bottom = int(rows.min()), int((rows + runs.stops - runs.starts).max())
    else:
        # A run that goes on in the next column touches the bottom and the top.
        top, bottom = 0, height
    return left, top, right - left + 1, bottom - top


def bits_in_box(runs: Runs, box: Box, height: int) -> Bits:
    """Return the bits inside the runs' own box, ``(h, w)`` bool; nothing outside it is touched."""
    left, top, width, inner = box
    columns = runs.starts // height
    edges = np.zeros(2 * len(columns) + 2, np.int64)
    edges[1:-1:2] = (columns - left) * inner + runs.starts - columns * height - top
    edges[2:-1:2] = edges[1:-1:2] + runs.stops - runs.starts
    edges[-1] = width * inner
    inside = np.zeros(len(edges) - 1, bool)
    inside[1::2] = True
    bits = np.repeat(inside, np.diff(edges)).reshape(-1, inner).T
    return np.ascontiguousarray(bits)


def bits_of_runs(runs: Runs, height: int) -> tuple[Box, Bits]:
    """Return the smallest box that holds the runs, XYWH, and the bits inside it, ``(h, w)`` bool.

    There must be at least one run. ``height`` is the image's, in pixels.
    """
    box = box_of_runs(runs, height)
    return box, bits_in_box(runs, box, height)


def runs_of_bits(bits: Bits, box: Box, height: int) -> Runs:
    """Return the runs of bits ``(h, w)`` inside a box of an image of this height: one run per column and stretch."""
    left, top, width, inner = box
    framed = np.zeros((width, inner + 2), np.int8)
    framed[:, 1:-1] = bits.T
    steps = np.diff(framed, axis=1)
    columns, rows = np.nonzero(steps)
    places = (columns + left) * height + rows + top
    rising = steps[columns, rows] > 0
    return Runs(places[rising], places[~rising])


def _lengths_of_text(text: str) -> Ints:
    """Return what :func:`maskscore.schema.rle_text.counts_from_text` returns, or raise as it does."""
    groups = np.frombuffer(text.encode(errors="surrogatepass"), np.uint8) - np.uint8(_FIRST)
    last = np.flatnonzero(groups & _MORE == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    sizes = last - first + 1
    well_formed = len(last) and groups.max() < 64 and last[-1] == len(groups) - 1 and sizes.max() <= _MOST_GROUPS
    if not well_formed:
        # Empty, or damaged: the plain reader finds the first fault and says it.
        return np.asarray(counts_from_text(text), np.int64)
    lengths = groups[last].astype(np.int64) & 0x1F
    lengths -= (lengths & _SIGN) << 1
    # Most runs have one or two groups: from the last to the first, each round takes one more of those that have more.
    for group in range(1, int(sizes.max())):
        more = np.flatnonzero(sizes > group)
        lengths[more] = (lengths[more] << 5) | (groups[last[more] - group] & 0x1F)
    # From the fourth run on, each is the difference to the run two before.
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    if lengths.min() < 0:
        return np.asarray(counts_from_text(text), np.int64)
    return lengths


def _lengths_of_list(counts: list[int], pixels: int) -> Ints:
    try:
        return np.asarray(counts, np.int64)
    except OverflowError:
        if min(counts) < 0:
            raise ValueError("it has a negative run") from None
        raise ValueError(f"its runs add up to more than the image's {pixels} pixels") from None
