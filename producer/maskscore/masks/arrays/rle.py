"""COCO's RLE read and written with arrays: of one mask, and of all labels of a map at once.

The text form is that of :mod:`maskscore.schema.rle_text`, which reads and writes it without NumPy; a test holds both
to the same counts and the same errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from maskscore.masks.arrays.runs import Ints, Runs
from maskscore.schema import RLE, counts_from_text

__all__ = [
    "count_labels",
    "read_counts",
    "rle_in_box",
    "rle_of_mask",
    "rle_of_runs",
    "rles_of_labels",
    "without_empty_runs",
]

_FIRST, _MORE, _SIGN = 48, 0x20, 0x10
# Seven groups of five bits hold every run of an image.
_GROUPS = 7


def rle_of_mask(mask: npt.NDArray[Any]) -> RLE:
    """Return the RLE of an ``(H, W)`` array; what is not zero is inside."""
    starts, ends = _spans(mask)
    return _rle_of_spans(starts, ends, mask.shape)


def rle_of_runs(runs: Runs, height: int, width: int) -> RLE:
    """Return the RLE of runs in an image of this size; runs that touch become one."""
    if not len(runs.starts):
        return _rle_of_spans(runs.starts, runs.stops, (height, width))
    apart = np.flatnonzero(runs.starts[1:] > runs.stops[:-1])
    starts, stops = runs.starts[np.concatenate([[0], apart + 1])], runs.stops[np.concatenate([apart, [-1]])]
    return _rle_of_spans(starts, stops, (height, width))


def rle_in_box(bits: npt.NDArray[Any], left: int, top: int, size: tuple[int, int]) -> RLE:
    """Return the RLE of an ``(h, w)`` array at ``left``, ``top`` in an image of ``size`` ``(height, width)``."""
    height = size[0]
    columns = np.zeros((height, bits.shape[1]), np.bool_)
    columns[top : top + bits.shape[0]] = bits
    starts, ends = _spans(columns)
    return _rle_of_spans(starts + left * height, ends + left * height, size)


def _spans(mask: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    flat = mask.astype(np.bool_, copy=False).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat[0]:
        edges = np.concatenate([[0], edges])
    if flat[-1]:
        edges = np.concatenate([edges, [flat.size]])
    return edges[0::2], edges[1::2]


def rles_of_labels(labels: npt.NDArray[Any]) -> Iterator[tuple[int, RLE]]:
    """Yield value and RLE of each value but 0 in an ``(H, W)`` array of integers, the lowest first.

    One pass over the pixels serves all values: the map's runs are sorted by value.
    """
    flat = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.concatenate([starts[1:], [flat.size]])
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    starts, ends, values = starts[order], ends[order], values[order]
    bounds = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1, [values.size]])
    for first, last in pairwise(bounds.tolist()):
        if values[first] != 0:
            yield int(values[first]), _rle_of_spans(starts[first:last], ends[first:last], labels.shape)


def count_labels(labels: npt.NDArray[Any]) -> int:
    """Return how many values but 0 an array of integers has; it must not be empty."""
    flat = labels.ravel()
    # Of each run of equal values one: there are few runs, and sorting all pixels would take most of the reading.
    firsts = flat[np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])]
    return int(np.count_nonzero(np.unique(firsts)))


def _rle_of_spans(starts: Ints, ends: Ints, size: tuple[int, ...]) -> RLE:
    """Return the RLE of the pixels ``starts[i] <= place < ends[i]``.

    Places count column by column through an image of ``size`` ``(height, width)``; spans ascend and do not touch.
    """
    height, width = size
    counts = np.empty(2 * starts.size + 1, np.int64)
    counts[0:-1:2] = starts
    counts[2:-1:2] -= ends[:-1]
    counts[1::2] = ends - starts
    counts[-1] = height * width - (int(ends[-1]) if ends.size else 0)
    return RLE(size=(height, width), counts=_text(counts if counts[-1] or counts.size == 1 else counts[:-1]))


def _text(counts: Ints) -> str:
    """Return COCO's compressed text (``rleToString``): see :mod:`maskscore.schema.rle_text`."""
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    characters = np.empty((rest.size, _GROUPS), np.uint8)
    written = np.zeros((rest.size, _GROUPS), np.bool_)
    goes_on = np.ones(rest.size, np.bool_)
    for group in range(_GROUPS):
        bits = rest & 0x1F
        rest >>= 5
        written[:, group] = goes_on
        more = rest != np.where(bits & _SIGN, -1, 0)
        characters[:, group] = np.where(more, bits | _MORE, bits) + _FIRST
        goes_on &= more
        if not goes_on.any():
            break
    return characters[written].tobytes().decode("ascii")


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
    # What follows the last run of ones is a run of zeros, if anything.
    runs = np.cumsum(lengths)[: len(lengths) // 2 * 2].reshape(-1, 2)
    return Runs(runs[runs[:, 1] > runs[:, 0]].ravel())


def without_empty_runs(counts: str, *, height: int, width: int) -> str:
    """Return compressed text whose runs, but for the first, have pixels: the text itself where it is so.

    pycocotools compares two masks only up to where empty runs of both meet. Raises ValueError as :func:`read_counts`.
    """
    lengths = _lengths_of_text(counts)
    if lengths[1:].all() and lengths.min() >= 0 and lengths.sum() == height * width:
        return counts
    text = rle_of_runs(read_counts(counts, pixels=height * width), height, width).counts
    assert isinstance(text, str)
    return text


def _lengths_of_text(text: str) -> Ints:
    """Return what :func:`maskscore.schema.rle_text.counts_from_text` returns, or raise as it does."""
    groups = np.frombuffer(text.encode(errors="surrogatepass"), np.uint8) - np.uint8(_FIRST)
    last = np.flatnonzero(groups & _MORE == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    sizes = last - first + 1
    well_formed = len(last) and groups.max() < 64 and last[-1] == len(groups) - 1 and sizes.max() <= _GROUPS
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
