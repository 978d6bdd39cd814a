"""COCO's compressed RLE of many masks of one image, read in one go: as of one, without a pass of NumPy for each.

A mask of a few hundred runs takes less time than the calls that read it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from maskscore.masks.arrays.runs import Bits, Ints, Runs
from maskscore.schema import Box

__all__ = ["ReadMask", "read_texts"]

_FIRST, _MORE, _SIGN = 48, 0x20, 0x10
_GROUPS: Final = 7


class ReadMask(NamedTuple):
    """The runs of a mask, its box XYWH, and its pixels."""

    runs: Runs
    box: Box
    area: int


def read_texts(texts: Sequence[str], *, height: int, width: int) -> list[ReadMask] | None:
    """Read the compressed run lengths of masks of an image of this size; equal to :func:`read_counts` of each.

    Memory is some hundred bytes per character. Returns None where any of the texts is damaged, has other pixels than
    the image, or no mask at all: :func:`read_counts` says which and why.
    """
    try:
        data = "".join(texts).encode("ascii")
    except UnicodeEncodeError:
        return None
    if not data or not all(texts):
        return None
    groups = np.frombuffer(data, np.uint8) - np.uint8(_FIRST)
    is_last = groups & _MORE == 0
    ends = np.cumsum([len(text) for text in texts])
    if groups.max() >= 64 or not is_last[ends - 1].all():
        return None
    last = np.flatnonzero(is_last)
    differences = _differences(groups, is_last, last)
    # Pairs of a run of zeros and one of ones, of each text from a row of its own on.
    run_ends = np.searchsorted(last, ends - 1) + 1
    run_counts = np.diff(run_ends, prepend=0)
    row_counts = (run_counts + 1) // 2
    row_ends = np.cumsum(row_counts)
    row_starts = row_ends - row_counts
    if differences is None:
        return None
    places = np.arange(len(last)) + np.repeat(2 * row_starts - (run_ends - run_counts), run_counts)
    pairs = np.zeros((int(row_ends[-1]), 2), np.int64)
    pairs.ravel()[places] = differences
    # From the fourth run on, each is the difference to the run two before: sums down the two columns.
    sums = np.cumsum(pairs, axis=0)
    before = np.zeros((len(texts), 2), np.int64)
    before[1:, 1] = sums[row_starts[1:] - 1, 1]
    before[:, 0] = sums[row_starts, 0]
    first_runs = pairs[row_starts, 0]
    lengths = sums - np.repeat(before, row_counts, axis=0)
    lengths[row_starts, 0] = first_runs
    odd = run_counts % 2 == 1
    lengths[row_ends[odd] - 1, 1] = 0
    pixels = height * width
    if lengths.min() < 0 or lengths.max() > pixels:
        return None
    stops = np.cumsum(lengths.ravel()).reshape(lengths.shape)
    totals = stops[row_ends - 1, 1]
    if not (np.diff(totals, prepend=0) == pixels).all():
        return None
    return _masks(stops, lengths[:, 1], row_starts, row_counts, height=height, pixels=pixels)


def _differences(groups: np.ndarray, is_last: Bits, last: Ints) -> Ints | None:
    """Return the number that each run's groups of five bits hold; None where one has too many."""
    # The highest bit of the last five is the sign: in bytes, which are added eight at a time.
    own = groups[last].view(np.int8) & 0x1F
    own -= (own & _SIGN) << 1
    values: Ints = own.astype(np.int64)
    early = np.flatnonzero(~is_last)
    if not len(early):
        return values
    # Before the last group, the least first; most runs have none, so these are few.
    runs = early - np.arange(len(early))
    heads = np.flatnonzero(np.diff(runs, prepend=-1))
    counts = np.diff(heads, append=len(runs))
    if counts.max() >= _GROUPS:
        return None
    places = np.arange(len(runs)) - np.repeat(heads, counts)
    lower = np.add.reduceat((groups[early].astype(np.int64) & 0x1F) << (5 * places), heads)
    values[runs[heads]] = (values[runs[heads]] << (5 * counts)) + lower
    return values


def _masks(
    stops: Ints, ones: Ints, row_starts: Ints, row_counts: Ints, *, height: int, pixels: int
) -> list[ReadMask] | None:
    """Return the masks whose ``(rows, 2)`` runs stop there, image after image; None where one is empty."""
    is_run = ones > 0
    counts = np.add.reduceat(is_run, row_starts, dtype=np.int64)
    if not counts.all():
        return None
    # Places within the image: each mask begins where the one before it ends.
    kept = np.flatnonzero(is_run)
    offsets = np.repeat(np.arange(len(row_counts)) * pixels, row_counts)[kept]
    begin, end = (stops.ravel()[2 * kept + column] - offsets for column in range(2))
    edges = np.cumsum(counts)
    heads = edges - counts
    columns, last_columns = begin // height, (end - 1) // height
    rows = begin - columns * height
    left, right = columns[heads], last_columns[edges - 1]
    top, bottom = np.minimum.reduceat(rows, heads), np.maximum.reduceat(rows + end - begin, heads)
    # A run that goes on in the next column touches the bottom and the top.
    wraps = np.logical_or.reduceat(columns != last_columns, heads)
    top[wraps], bottom[wraps] = 0, height
    areas = np.add.reduceat(end - begin, heads)
    boxes = np.stack([left, top, right - left + 1, bottom - top], axis=1)
    return [
        ReadMask(Runs(begin[head:edge], end[head:edge]), (x, y, w, h), area)
        for head, edge, (x, y, w, h), area in zip(
            heads.tolist(), edges.tolist(), boxes.tolist(), areas.tolist(), strict=True
        )
    ]
