"""Masks of a job → regions of its image."""

from __future__ import annotations

from maskscore_worker.masks.copies_and_parts import find_copies_and_parts
from maskscore_worker.masks.regions import Region, SkippedRegion, check_sizes, find_regions

__all__ = [
    "Region",
    "SkippedRegion",
    "check_sizes",
    "find_copies_and_parts",
    "find_regions",
]
