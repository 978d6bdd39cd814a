"""Differences between two scores of the same masks, points at a recall, and means by image."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import pytest

from maskscore.statistics import Difference, Estimate, Ranked, Scored, clustered_mean, operating_curve, point_at_recall

Sides = tuple[list[Scored], list[Scored]]
# The areas between normal distributions 1 and 1.5 deviations apart: Φ(1/√2) and Φ(1.5/√2).
AREAS = 0.760250, 0.855578


def scored_twice(rng: random.Random, alike: float) -> tuple[Sides, Sides]:
    """Two scores of the same masks of 20 images, 5 objects and 5 others each, whose errors correlate by ``alike``."""
    first: Sides = [], []
    second: Sides = [], []
    for image in range(20):
        shared, own = rng.gauss(0, 0.5), [rng.gauss(0, 0.5) for _ in range(2)]
        for _ in range(5):
            for side, is_object in enumerate((1, 0)):
                common = rng.gauss(0, 0.75**0.5)
                for sides, apart, one in zip((first, second), (1.0, 1.5), own, strict=True):
                    noise = alike**0.5 * (shared + common) + (1 - alike) ** 0.5 * (one + rng.gauss(0, 0.75**0.5))
                    sides[side].append((apart * is_object + noise, image))
    return first, second


def difference_of_aurocs(*both: tuple[Sequence[Scored], Sequence[Scored]]) -> Difference | None:
    first, second = ((Ranked(objects), Ranked(others)) for objects, others in both)
    return Difference.of_aurocs(first, second)


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_intervals_of_differences_hold_the_truth_and_pairs_make_them_narrow(alike: float) -> None:
    rng, rounds, held, widths = random.Random(0), 150, {"area": 0, "share": 0}, 0.0
    for _ in range(rounds):
        first, second = scored_twice(rng, alike)
        difference = difference_of_aurocs(first, second)
        assert difference is not None
        held["area"] += difference.low <= AREAS[1] - AREAS[0] <= difference.high
        widths += difference.high - difference.low
        hits = []
        for sides in (first, second):
            counts: dict[object, tuple[int, int]] = defaultdict(lambda: (0, 0))
            for score, image in sides[0]:
                counts[image] = counts[image][0] + (score > 0), counts[image][1] + 1
            hits.append(counts)
        # Φ(1) and Φ(1.5) of the objects are above 0.
        share = Difference.of_shares(*hits)
        assert share is not None
        held["share"] += share.low <= 0.933193 - 0.841345 <= share.high
    assert held["area"] / rounds >= 0.91
    assert held["share"] / rounds >= 0.91
    assert (widths / rounds < 0.13) == (alike == 0.9)


def test_equal_rankings_differ_by_nothing_and_perfect_ones_are_not_certain() -> None:
    first, _ = scored_twice(random.Random(1), 0.0)
    doubled = [(2 * score, image) for score, image in first[0]], [(2 * score, image) for score, image in first[1]]
    same = difference_of_aurocs(first, doubled)
    assert same is not None
    assert same.value == 0
    assert -0.05 < same.low <= 0 <= same.high < 0.05
    perfect = [(1.0, image) for image in range(5)], [(0.0, image) for image in range(5)]
    unsure = difference_of_aurocs(perfect, perfect)
    assert unsure is not None
    assert unsure.low < -0.2
    assert unsure.high > 0.2
    one_image = [(1.0, "a"), (0.4, "a")], [(0.5, "a")]
    unknown = difference_of_aurocs(one_image, one_image)
    assert unknown is not None
    assert unknown.high > 0.7
    assert difference_of_aurocs(([], []), ([], [])) is None
    assert Difference.of_shares({}, {}) is None


def test_means_are_of_images() -> None:
    # Four images of equal size with the means 0, 0, 1 and 1: the standard error of four numbers.
    values, images = [0.0] * 6 + [1.0] * 6, [row // 3 for row in range(12)]
    mean, error, degrees = clustered_mean(values, images)
    assert (mean, degrees) == (0.5, 3)
    assert error == pytest.approx((1 / 3) ** 0.5 / 2)
    assert Estimate.of_mean([0.25, 0.75], ["a", "a"]) == Estimate(0.5, 0.0, 1.0)
    assert Difference.of_means([0.5] * 12, [0.25] * 12, images) == Difference(-0.25, -0.25, -0.25)


def test_the_point_at_a_recall_is_the_one_with_the_highest_threshold() -> None:
    values = [0.9, 0.8, 0.7, 0.7, 0.6, 0.5]
    hits = [True, False, True, False, True, True]
    images = list("abcdef")
    point = point_at_recall(0.5, images, values, hits, hits)
    assert point is not None
    # Of equal values all are kept, or none.
    assert (point.threshold, point.kept, point.precision.value, point.recall.value) == (0.7, 4, 0.5, 0.5)
    everything = point_at_recall(1.0, images, values, hits, hits)
    assert everything is not None
    assert everything.kept == 6
    assert point_at_recall(0.5, images, values, [False] * 6, [False] * 6) is None
    assert operating_curve([], [], [], []) == []
    kept = [one.kept for one in operating_curve(images, values, hits, hits)]
    assert kept == [1, 2, 4, 5, 6]
