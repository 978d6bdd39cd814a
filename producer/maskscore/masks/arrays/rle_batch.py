"""COCO's compressed RLE of many masks of one image, read in one go: as of one, without a pass of NumPy for each.

A mask of a few hundred runs takes less time than the calls that read it alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from maskscore.masks.arrays.runs import Ints, Runs
from maskscore.schema import Box

__all__ = ["ReadMask", "read_texts"]

_FIRST, _MORE, _SIGN = 48, 0x20, 0x10
_GROUPS: Final = 7
# Sums of two runs, and of a run and a difference that can be right, fit 32 bits; larger images are read mask by mask.
_MOST_PIXELS: Final = 1 << 29

Ints32 = npt.NDArray[np.int32]


class ReadMask(NamedTuple):
    """The runs of a mask, its box XYWH, and its pixels."""

    runs: Runs
    box: Box
    area: int


def read_texts(texts: Sequence[str], *, height: int, width: int) -> list[ReadMask] | None:
    """Read the compressed run lengths of masks of an image of this size; equal to :func:`read_counts` of each.

    Memory is some hundred bytes per character. Returns None where any of the texts is damaged, has other pixels than
    the image, or no mask at all (:func:`read_counts` says which and why), and for an image of more than 2²⁹ pixels.

    Sums over all masks are of 32 bits and overflow, but differences of two of them are right where both are of one
    mask and nothing between them is out of bounds.
    """
    pixels = height * width
    try:
        data = "".join(texts).encode("ascii")
    except UnicodeEncodeError:
        return None
    if not data or not all(texts) or pixels > _MOST_PIXELS:
        return None
    groups = np.frombuffer(data, np.uint8) - np.uint8(_FIRST)
    is_last = groups < _MORE
    ends = np.cumsum(list(map(len, texts)))
    if groups.max() >= 64 or not is_last[ends - 1].all():
        return None
    last = np.flatnonzero(is_last)
    differences = _differences(groups, last)
    if differences is None:
        return None
    # Pairs of a run of zeros and one of ones, of each text from a row of its own on.
    run_ends = np.searchsorted(last, ends - 1) + 1
    run_counts = np.diff(run_ends, prepend=0)
    row_counts = (run_counts + 1) // 2
    row_ends = np.cumsum(row_counts)
    row_starts = row_ends - row_counts
    pairs = np.zeros((int(row_ends[-1]), 2), np.int32)
    flat = pairs.ravel()
    for place, end, count in zip((2 * row_starts).tolist(), run_ends.tolist(), run_counts.tolist(), strict=True):
        flat[place : place + count] = differences[end - count : end]
    # From the fourth run on, each is the difference to the run two before: sums down the two columns.
    lengths = np.cumsum(pairs, axis=0, dtype=np.int32)
    before = np.zeros((len(texts), 2), np.int32)
    before[1:, 1] = lengths[row_starts[1:] - 1, 1]
    before[:, 0] = lengths[row_starts, 0]
    lengths -= np.repeat(before.view(np.int64), row_counts).view(np.int32).reshape(-1, 2)
    lengths[row_starts, 0] = pairs[row_starts, 0]
    lengths[row_ends[run_counts % 2 == 1] - 1, 1] = 0
    # As numbers without a sign, negative ones are too large.
    if lengths.view(np.uint32).max() > pixels:
        return None
    sums = np.cumsum(lengths, axis=0, dtype=np.int32)
    stops = sums[:, 0] + sums[:, 1]
    stops -= np.repeat(np.concatenate([np.zeros(1, np.int32), stops[row_ends[:-1] - 1]]), row_counts)
    if stops.view(np.uint32).max() > pixels or not (stops[row_ends - 1] == pixels).all():
        return None
    kept = np.flatnonzero(lengths[:, 1])
    heads = np.searchsorted(kept, row_starts)
    tails = np.append(heads[1:], len(kept))
    if not (tails > heads).all():
        return None
    runs = np.stack([(stops - lengths[:, 1])[kept], stops[kept]], axis=1)
    return _masks(runs, heads, tails, height)


def _differences(groups: npt.NDArray[np.uint8], last: Ints) -> Ints32 | None:
    """Return the number that each run's groups of five bits hold; None where one is larger than any image's."""
    # The highest bit of the last five is the sign: in bytes, which are added eight at a time.
    own = groups[last].view(np.int8) & 0x1F
    own -= (own & _SIGN) << 1
    values = own.astype(np.int32)
    early = np.flatnonzero(groups >= _MORE)
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
    longer = (values[runs[heads]].astype(np.int64) << (5 * counts)) + lower
    if np.abs(longer).max() > _MOST_PIXELS:
        return None
    values[runs[heads]] = longer
    return values


def _masks(runs: Ints32, heads: Ints, tails: Ints, height: int) -> list[ReadMask]:
    """Return the masks of ``(N, 2)`` runs, of which each mask has those from its head to its tail, at least one."""
    inside = runs.copy()
    inside[:, 1] -= 1
    columns = inside // height
    rows = inside - columns * height
    left, right = columns[heads, 0], columns[tails - 1, 1]
    top, bottom = np.minimum.reduceat(rows[:, 0], heads), np.maximum.reduceat(rows[:, 1], heads)
    # A run that goes on in the next column touches the bottom and the top.
    wraps = np.searchsorted(heads, np.flatnonzero(columns[:, 0] != columns[:, 1]), side="right") - 1
    top[wraps], bottom[wraps] = 0, height - 1
    areas = np.add.reduceat(runs[:, 1] - runs[:, 0], heads)
    boxes = np.stack([left, top, right - left + 1, bottom - top + 1], axis=1)
    edges = runs.ravel().astype(np.int64)
    return [
        ReadMask(Runs(edges[2 * head : 2 * tail]), (x, y, w, h), area)
        for head, tail, (x, y, w, h), area in zip(
            heads.tolist(), tails.tolist(), boxes.tolist(), areas.tolist(), strict=True
        )
    ]
