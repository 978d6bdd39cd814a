"""Two measures with their uncertainty: a share of successes, and the area under the ROC curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

__all__ = ["Z", "auroc", "auroc_interval", "share_interval"]

Z = 1.959964
"""Standard deviations on each side of a normal distribution's mean that hold 95 %."""


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float | None:
    """Return the probability that a positive scores above a negative, ties counted half; ``None`` if one has none.

    The Mann-Whitney statistic by ranks, equal scores sharing the mean of theirs: the area under the ROC curve.
    """
    if not positives or not negatives:
        return None
    marked = sorted([(score, 1) for score in positives] + [(score, 0) for score in negatives])
    ranks = before = 0.0
    for _, tied in groupby(marked, key=lambda entry: entry[0]):
        marks = [mark for _, mark in tied]
        ranks += sum(marks) * (before + (len(marks) + 1) / 2)
        before += len(marks)
    wins = ranks - len(positives) * (len(positives) + 1) / 2
    return wins / (len(positives) * len(negatives))


def auroc_interval(area: float, positives: int, negatives: int) -> tuple[float, float]:
    """Return the 95 % interval of an area from so many masks.

    Newcombe's fifth method (Statistics in Medicine 25, 2006): the areas from which the one that was found is not
    farther than :data:`Z` standard errors by Hanley and McNeil (Radiology 143, 1982), with the mean of both counts in
    place of each. Unlike theirs it has a width at an area of 1. It takes masks as independent; those of one image are
    not quite, so it is a little too narrow.
    """

    def apart(truth: float) -> bool:
        more = ((positives + negatives) / 2 - 1) * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        return abs(area - truth) > Z * math.sqrt(truth * (1 - truth) * (1 + more) / (positives * negatives))

    return _border(area, 0.0, apart), _border(area, 1.0, apart)


def _border(inside: float, outside: float, apart: Callable[[float], bool]) -> float:
    """Halve the way between a value that is near and one that may be apart, until they are next to each other."""
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if apart(middle) else (middle, outside)
    return outside


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``count`` ≥ 1 trials by Wilson's score."""
    share, z2 = hits / count, Z * Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)
