"""Runs of a mask: where pixels start and stop, and the bits inside their own box."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from maskscore.schema import Box

__all__ = ["Bits", "Ints", "Runs", "bits_in_box", "box_of_runs", "runs_of_bits", "union"]

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]


class Runs(NamedTuple):
    """Pixels inside a mask, as places in column-major order (``column * height + row``).

    ``edges`` are ``(2N,)`` int64: where each run starts and stops, in turn. Runs are half open, in rising order and
    without overlap; none is empty.
    """

    edges: Ints

    @classmethod
    def between(cls, starts: Ints, stops: Ints) -> Runs:
        """Return the runs from ``starts`` to ``stops``, both ``(N,)`` int64."""
        return cls(np.stack([starts, stops], axis=1).ravel())

    @property
    def starts(self) -> Ints:
        """Each run's first place, ``(N,)``."""
        return self.edges[0::2]

    @property
    def stops(self) -> Ints:
        """The place behind each run, ``(N,)``."""
        return self.edges[1::2]

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int((self.stops - self.starts).sum())


def union(runs: Runs) -> Runs:
    """Return runs that may overlap, in any order, as runs that do not."""
    if not len(runs.starts):
        return runs
    order = np.argsort(runs.starts, kind="stable")
    starts, stops = runs.starts[order], np.maximum.accumulate(runs.stops[order])
    apart = np.flatnonzero(starts[1:] > stops[:-1])
    return Runs.between(starts[np.concatenate([[0], apart + 1])], stops[np.concatenate([apart, [len(stops) - 1]])])


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


def runs_of_bits(bits: Bits, box: Box, height: int) -> Runs:
    """Return the runs of bits ``(h, w)`` inside a box of an image of this height: one run per column and stretch."""
    left, top, width, inner = box
    framed = np.zeros((width, inner + 2), np.int8)
    framed[:, 1:-1] = bits.T
    # Within a column they start and stop in turn.
    columns, rows = np.nonzero(np.diff(framed, axis=1))
    return Runs((columns + left) * height + rows + top)
