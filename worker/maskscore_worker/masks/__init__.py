"""Masks of a job → regions of its image."""

from __future__ import annotations

from maskscore_worker.masks.regions import (
    Region,
    SkippedRegion,
    check_sizes,
    find_regions,
)
from maskscore_worker.masks.runs import (
    Runs,
)

__all__ = [
    "Region",
    "Runs",
    "SkippedRegion",
    "check_sizes",
    "find_regions",
]
