"""A job's regions in portions that fill one batch, so that only so many crops are in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from maskscore_worker.masks import Region, SkippedRegion
from maskscore_worker.telemetry import StageTimer

__all__ = ["region_portions"]


def region_portions(
    regions: Iterator[Region | SkippedRegion], size: int, check: Callable[[], None], timer: StageTimer
) -> Iterator[tuple[list[Region | SkippedRegion], bool]]:
    """Yield regions in their order, with at most ``size`` to score at a time, and whether no more regions follow."""
    last = False
    while not last:
        portion: list[Region | SkippedRegion] = []
        to_score = 0
        while not last and to_score < size:
            # Per region, since masks that are skipped, or slow to draw, fill no batch.
            check()
            with timer.stage("regions"):
                region = next(regions, None)
            if region is None:
                last = True
            else:
                portion.append(region)
                to_score += isinstance(region, Region)
        if portion:
            yield portion, last
