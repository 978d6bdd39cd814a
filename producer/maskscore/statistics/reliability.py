"""Reliability of probabilities: masks of like probability, and how many of them are to be kept."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from maskscore.statistics.intervals import Estimate

__all__ = ["ReliabilityBin", "reliability_bins"]

_BINS: Final = 10
_IN_A_BIN: Final = 20


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Masks of like ``p_keep``: the mean of it, and how many of them really are to be kept."""

    masks: int
    p_keep: float
    share: Estimate


def reliability_bins(images: Sequence[Hashable], p_keep: Sequence[float], hits: Sequence[bool]) -> list[ReliabilityBin]:
    """Return at most ten bins of about as many masks each, in the order of ``p_keep``; equal ones are in one bin."""
    number = max(1, min(_BINS, len(p_keep) // _IN_A_BIN))
    edges = sorted(set(statistics.quantiles(p_keep, n=number, method="inclusive"))) if number > 1 else []
    bins: dict[int, list[tuple[Hashable, float, bool]]] = defaultdict(list)
    for row in zip(images, p_keep, hits, strict=True):
        bins[bisect_right(edges, row[1])].append(row)
    found = []
    for _, rows in sorted(bins.items()):
        own, probabilities, right = zip(*rows, strict=True)
        found.append(ReliabilityBin(len(rows), sum(probabilities) / len(rows), Estimate.of_hits(own, right)))
    return found
