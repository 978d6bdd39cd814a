"""Masks as NumPy arrays: RLE, runs, polygons, outlines, overlaps. For those who have NumPy, as workers do."""

from __future__ import annotations

from maskscore.masks.arrays.outlines import joined_outline
from maskscore.masks.arrays.overlaps import Displaced, find_displaced
from maskscore.masks.arrays.polygons import MOST_CROSSINGS, TooMuchWork, filled_outline_runs, polygon_runs
from maskscore.masks.arrays.rle import (
    count_labels,
    read_counts,
    rle_in_box,
    rle_of_mask,
    rle_of_runs,
    rles_of_labels,
    without_empty_runs,
)
from maskscore.masks.arrays.rle_batch import ReadMask, read_texts
from maskscore.masks.arrays.runs import Bits, Ints, Runs, bits_in_box, box_of_runs, runs_of_bits, union

__all__ = [
    "MOST_CROSSINGS",
    "Bits",
    "Displaced",
    "Ints",
    "ReadMask",
    "Runs",
    "TooMuchWork",
    "bits_in_box",
    "box_of_runs",
    "count_labels",
    "filled_outline_runs",
    "find_displaced",
    "joined_outline",
    "polygon_runs",
    "read_counts",
    "read_texts",
    "rle_in_box",
    "rle_of_mask",
    "rle_of_runs",
    "rles_of_labels",
    "runs_of_bits",
    "union",
    "without_empty_runs",
]
