"""Masks as runs and outlines: encoding, polygons, connected components. Arrays are in :mod:`maskscore.masks.arrays`."""

from __future__ import annotations

from maskscore.masks.components import Part, connected_parts, counts_of, spans_of
from maskscore.masks.encoding import encode_mask, run_lengths
from maskscore.masks.frame_fit import count_fitting
from maskscore.masks.polygons import drawable, filled_outline_spans, is_stray, outline_steps, polygon_runs

__all__ = [
    "Part",
    "connected_parts",
    "count_fitting",
    "counts_of",
    "drawable",
    "encode_mask",
    "filled_outline_spans",
    "is_stray",
    "outline_steps",
    "polygon_runs",
    "run_lengths",
    "spans_of",
]
