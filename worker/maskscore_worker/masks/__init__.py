"""Masks of a job → regions of its image."""

from __future__ import annotations

from maskscore_worker.masks.duplicates import find_duplicates
from maskscore_worker.masks.regions import Region, SkippedRegion, check_sizes, find_regions

__all__ = [
    "Region",
    "SkippedRegion",
    "check_sizes",
    "find_duplicates",
    "find_regions",
]
