"""Differences between two estimates of the same masks, with 95 % intervals by image.

The intervals are made of those of the two estimates and the correlation between them: "square and add" (Newcombe,
Statistics in Medicine 17, 1998, method 10; Zou and Donner, Statistics in Medicine 27, 2008). The correlation is that of
the jackknife's values, of all images but one. Where one of the two does not vary, such as an AUROC of 1, it is taken
to be 0, which makes the interval wider.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from maskscore.statistics.intervals import (
    Estimate,
    Ranked,
    areas_without_each_image,
    clustered_mean,
    shares_without_each_image,
    t_quantile,
)

__all__ = ["Difference"]

Sides = tuple[Ranked, Ranked]
"""The scores of the positives, and of the negatives."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A second value less a first one, of the same masks, with its 95 % confidence interval, clustered by image."""

    value: float
    low: float
    high: float

    @classmethod
    def of_aurocs(cls, first: Sides, second: Sides) -> Difference | None:
        """Return the difference of areas; ``None`` where one side has no mask. Both have the masks in one order."""
        estimates = [Estimate.of_auroc(*sides) for sides in (first, second)]
        if estimates[0] is None or estimates[1] is None:
            return None
        areas = [areas_without_each_image(*sides) for sides in (first, second)]
        if areas[0] is None or areas[1] is None:
            return _square_and_add(estimates[0], estimates[1], 0.0)
        # The images of both are the same, and in the same order.
        return _square_and_add(
            estimates[0], estimates[1], _correlation(list(areas[0].values()), list(areas[1].values()))
        )

    @classmethod
    def of_shares(
        cls, first: Mapping[Hashable, tuple[int, int]], second: Mapping[Hashable, tuple[int, int]]
    ) -> Difference | None:
        """Return the difference of shares, of hits and masks by image; ``None`` where there are no masks."""
        images = [image for image, (_, count) in first.items() if count]
        if not images:
            return None
        pair = [[counts[image] for image in images] for counts in (first, second)]
        correlation = 0.0 if len(images) < 2 else _correlation(*map(shares_without_each_image, pair))
        return _square_and_add(Estimate.of_share(pair[0]), Estimate.of_share(pair[1]), correlation)

    @classmethod
    def of_means(cls, first: Sequence[float], second: Sequence[float], images: Sequence[Hashable]) -> Difference:
        """Return the difference of the means of values from 0 to 1, such as squared errors, of one mask or more."""
        mean, error, degrees = clustered_mean([b - a for a, b in zip(first, second, strict=True)], images)
        half = t_quantile(degrees) * error if degrees else 2.0
        return cls(mean, max(-1.0, mean - half), min(1.0, mean + half))


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    means = sum(first) / len(first), sum(second) / len(second)
    mixed = math.fsum((a - means[0]) * (b - means[1]) for a, b in zip(first, second, strict=True))
    squares = [math.fsum((one - mean) ** 2 for one in own) for own, mean in zip((first, second), means, strict=True)]
    scale = math.sqrt(squares[0] * squares[1])
    return max(-1.0, min(1.0, mixed / scale)) if scale else 0.0


def _square_and_add(first: Estimate, second: Estimate, correlation: float) -> Difference:
    def length(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * correlation * one * other + other * other))

    value = second.value - first.value
    below = length(second.value - second.low, first.high - first.value)
    above = length(second.high - second.value, first.value - first.low)
    return Difference(value, max(-1.0, value - below), min(1.0, value + above))
