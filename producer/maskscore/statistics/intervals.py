"""Measures with their uncertainty: a share of successes, the area under the ROC curve, and the mean of errors.

Masks of one image are alike: they share its light, its sharpness and its scene. So the intervals are of images: each
begins as if masks were independent, and the number of masks is then divided by the *design effect*, how many times the
estimate varies more because they come image by image (Kish, Survey Sampling, 1965). That variance is the jackknife's,
which leaves out one image at a time (Efron and Stein, Annals of Statistics 9, 1981): it does not understate what an
image with most of the masks contributes. Few images, or a few that hold most masks, make the design effect itself
uncertain, hence Student's t in place of the normal distribution's quantile, with one degree of freedom
less than the *effective* number of images, ``(Σn)² / Σn²`` for ``n`` masks per image.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter

__all__ = [
    "Estimate",
    "Ranked",
    "Scored",
    "areas_without_each_image",
    "auroc_with_interval",
    "clustered_mean",
    "hits_of_images",
    "share_interval",
    "shares_without_each_image",
    "t_quantile",
]

Scored = tuple[float, Hashable]
"""A mask's score, and the image that the mask is of."""


class Ranked:
    """Masks in the order of their scores; one side of an area may be compared with many others."""

    def __init__(self, masks: Iterable[Scored]) -> None:
        listed = list(masks)
        ordered = sorted(listed, key=itemgetter(0))
        self.scores: list[float] = [score for score, _ in ordered]
        self.images: list[Hashable] = [image for _, image in ordered]
        #: The scores of each image in ascending order, the images in the order in which they were given.
        self.by_image: dict[Hashable, list[float]] = {image: [] for _, image in listed}
        for score, image in ordered:
            self.by_image[image].append(score)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value from 0 to 1 with its 95 % confidence interval, clustered by image."""

    value: float
    low: float
    high: float

    @classmethod
    def of_share(cls, hits_by_image: Sequence[tuple[int, int]]) -> Estimate:
        """Return the share of hits, as :func:`share_interval` counts them, of one mask or more."""
        hits, count = (sum(column) for column in zip(*hits_by_image, strict=True))
        return cls(hits / count, *share_interval(hits_by_image))

    @classmethod
    def of_hits(cls, images: Iterable[Hashable], hits: Iterable[bool]) -> Estimate:
        """Return the share of hits among masks, one at least, of these images."""
        return cls.of_share(list(hits_of_images(images, hits).values()))

    @classmethod
    def of_mean(cls, values: Sequence[float], images: Sequence[Hashable]) -> Estimate:
        """Return the mean of values from 0 to 1, one at least, with the interval of :func:`clustered_mean`."""
        mean, error, degrees = clustered_mean(values, images)
        half = t_quantile(degrees) * error if degrees else 1.0
        return cls(mean, max(0.0, mean - half), min(1.0, mean + half))

    @classmethod
    def of_auroc(cls, positives: Ranked, negatives: Ranked) -> Estimate | None:
        """Return the area under the ROC curve; ``None`` where one side has no mask."""
        if not positives.scores or not negatives.scores:
            return None
        return cls(*auroc_with_interval(positives, negatives))


_Z = 1.959964
# From here on Student's t is the normal distribution to three places.
_MANY = 500


@cache
def t_quantile(degrees: int) -> float:
    """Return how far from 0 Student's t with ``degrees`` ≥ 1 degrees of freedom holds 95 % on both sides together.

    By halving the integral's closed form (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    if degrees > _MANY:
        return _Z

    def within(t: float) -> float:
        angle = math.atan(t / math.sqrt(degrees))
        cosine = math.cos(angle)
        odd = degrees % 2
        term, total = (cosine, 0.0) if odd else (1.0, 0.0)
        for step in range(1 + odd, degrees, 2):
            total += term
            term *= cosine * cosine * step / (step + 1)
        if not odd:
            return math.sin(angle) * total
        return 2 / math.pi * (angle + math.sin(angle) * total)

    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < 0.95 else (low, middle)
    return high


def auroc_with_interval(positives: Ranked, negatives: Ranked) -> tuple[float, float, float]:
    """Return the area under the ROC curve with its 95 % interval; both sides have one mask at least.

    The area is the Mann-Whitney statistic: the probability that a positive scores above a negative, ties counted half.

    Newcombe's fifth method (Statistics in Medicine 25, 2006): the areas from which the one that was found is not
    farther than a quantile of standard errors by Hanley and McNeil (Radiology 143, 1982), with the mean of both counts
    in place of each. Unlike theirs it has a width at an area of 1. The counts are divided by the design effect: the
    area's variance by the jackknife over images (by Obuchowski, Biometrics 53, 1997, where one image holds all of a
    side) over that with every mask by itself
    (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988), and 1 at least. Where no mask is on the wrong side, the
    data do not tell how alike the masks of an image are, and the counts are those of images. From one image follows
    nothing about others: the interval is 0 to 1.
    """
    above = _ranks(positives.scores, negatives.scores)
    pairs = len(positives.scores) * len(negatives.scores)
    area = math.fsum(above) / pairs
    sizes = Counter({image: len(scores) for image, scores in positives.by_image.items()})
    sizes.update({image: len(scores) for image, scores in negatives.by_image.items()})
    if len(sizes) < 2:
        return area, 0.0, 1.0
    if area in (0.0, 1.0):
        objects, others = float(len(positives.by_image)), float(len(negatives.by_image))
    else:
        sides = [positives.images, negatives.images]
        shares = [
            [rank / len(negatives.scores) for rank in above],
            [1 - rank / len(positives.scores) for rank in _ranks(negatives.scores, positives.scores)],
        ]
        without = areas_without_each_image(positives, negatives)
        clustered = (
            _variance(shares, area, sides)
            if without is None
            else (len(without) - 1) / len(without) * math.fsum((other - area) ** 2 for other in without.values())
        )
        alone = _variance(shares, area, None)
        effect = max(1.0, clustered / alone) if alone else 1.0
        objects, others = len(positives.scores) / effect, len(negatives.scores) / effect
    quantile = t_quantile(_degrees(sizes.values()))

    def apart(truth: float) -> bool:
        more = max(0.0, (objects + others) / 2 - 1) * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        return abs(area - truth) > quantile * math.sqrt(truth * (1 - truth) * (1 + more) / (objects * others))

    return area, _border(area, 0.0, apart), _border(area, 1.0, apart)


def share_interval(hits_by_image: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Return the 95 % interval of a share; per image, how many of its masks are hits, and how many there are.

    Wilson's score (Journal of the American Statistical Association 22, 1927), with the number of masks divided by the
    design effect, which is 1 at least. Where all are hits or none is, the data do not tell how alike the masks of an
    image are, and the count is that of images. From one image follows nothing about others: the interval is 0 to 1.
    """
    by_image = [(hits, count) for hits, count in hits_by_image if count]
    images = len(by_image)
    if images < 2:
        return 0.0, 1.0
    hits, masks = (sum(column) for column in zip(*by_image, strict=True))
    share = hits / masks
    if hits in (0, masks):
        count = float(images)
    else:
        without = shares_without_each_image(by_image)
        variance = (images - 1) / images * sum((other - share) ** 2 for other in without)
        count = masks / max(1.0, variance * masks / (share * (1 - share)))
    square = t_quantile(_degrees([number for _, number in by_image])) ** 2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = (
        math.sqrt(square) / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    )
    return 0.0 if hits == 0 else max(0.0, middle - half), 1.0 if hits == masks else min(1.0, middle + half)


def hits_of_images(images: Iterable[Hashable], hits: Iterable[bool]) -> dict[Hashable, tuple[int, int]]:
    """Return, for each image of some masks, how many of them are hits, and how many there are."""
    counts: dict[Hashable, tuple[int, int]] = {}
    for image, hit in zip(images, hits, strict=True):
        own, number = counts.get(image, (0, 0))
        counts[image] = own + hit, number + 1
    return counts


def shares_without_each_image(hits_by_image: Sequence[tuple[int, int]]) -> list[float]:
    """Return the share of hits in all images but one, for each of two images or more that have masks."""
    hits, masks = (sum(column) for column in zip(*hits_by_image, strict=True))
    return [(hits - own) / (masks - number) for own, number in hits_by_image]


def clustered_mean(values: Sequence[float], images: Sequence[Hashable]) -> tuple[float, float, int]:
    """Return a mean, its standard error, and the error's degrees of freedom.

    The values of an image are a cluster, and the variance is that of a mean of clusters (Kish). From one image follows
    nothing about others: it has an error of 0 with 0 degrees of freedom.
    """
    mean = sum(values) / len(values)
    sums: dict[Hashable, float] = defaultdict(float)
    for value, image in zip(values, images, strict=True):
        sums[image] += value - mean
    number = len(sums)
    if number < 2:
        return mean, 0.0, 0
    squares = math.fsum(total * total for total in sums.values())
    return mean, math.sqrt(number / (number - 1) * squares) / len(values), number - 1


def _ranks(scores: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return for each score how many of the others it is above, ties counted half; both are in ascending order."""
    if len(scores) <= len(others):
        return [(bisect_left(others, score) + bisect_right(others, score)) / 2 for score in scores]
    # Fewer searches: all scores between two of the others have one rank.
    ranks: list[float] = []
    below = place = 0
    while below < len(others):
        end = bisect_right(others, others[below], below)
        left = bisect_left(scores, others[below], place)
        ranks += [float(below)] * (left - place)
        place = bisect_right(scores, others[below], left)
        ranks += [(below + end) / 2] * (place - left)
        below = end
    return ranks + [float(below)] * (len(scores) - place)


def _degrees(masks_per_image: Iterable[int]) -> int:
    """Return the degrees of freedom: the effective number of images less one, and 1 at least."""
    counts = list(masks_per_image)
    # A product of integers, and so no rounding where all images have as many masks.
    return max(1, sum(counts) ** 2 // sum(count * count for count in counts) - 1)


def areas_without_each_image(positives: Ranked, negatives: Ranked) -> dict[Hashable, float] | None:
    """Return, by image, the area of all other images; ``None`` where one image holds all masks of a side."""
    if len(positives.by_image) < 2 or len(negatives.by_image) < 2:
        return None
    lost: dict[Hashable, float] = dict.fromkeys((*positives.by_image, *negatives.by_image), 0.0)
    total = 0.0
    for image, rank in zip(positives.images, _ranks(positives.scores, negatives.scores), strict=True):
        lost[image] += rank
        total += rank
    first, second = len(positives.scores), len(negatives.scores)
    for image, rank in zip(negatives.images, _ranks(negatives.scores, positives.scores), strict=True):
        lost[image] += first - rank
    areas = {}
    for image, pairs in lost.items():
        own, others = positives.by_image.get(image, ()), negatives.by_image.get(image, ())
        within = sum(_ranks(own, others)) if own and others else 0.0
        areas[image] = (total - pairs + within) / ((first - len(own)) * (second - len(others)))
    return areas


def _variance(shares: Sequence[Sequence[float]], area: float, clusters: Sequence[Sequence[Hashable]] | None) -> float:
    """Return the variance of an area by Obuchowski, or with every mask by itself where there are no clusters.

    ``shares`` are each positive's share of negatives below it, and each negative's of positives above it.
    """
    if clusters is None:
        return sum(
            math.fsum((share - area) ** 2 for share in side) / len(side) / max(1, len(side) - 1) for side in shares
        )
    sums: dict[Hashable, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for side, (own, images) in enumerate(zip(shares, clusters, strict=True)):
        for share, image in zip(own, images, strict=True):
            sums[image][side] += share - area
    first, second = (
        _corrected(sum(pair[side] ** 2 for pair in sums.values()), len(set(clusters[side]))) for side in (0, 1)
    )
    mixed = _corrected(sum(pair[0] * pair[1] for pair in sums.values()), len(sums))
    counts = [len(side) for side in shares]
    return first / counts[0] ** 2 + second / counts[1] ** 2 + 2 * mixed / (counts[0] * counts[1])


def _corrected(total: float, count: int) -> float:
    return total * count / (count - 1) if count > 1 else total


def _border(inside: float, outside: float, apart: Callable[[float], bool]) -> float:
    """Halve the way between a value that is near and one that may be apart, until they are next to each other."""
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if apart(middle) else (middle, outside)
    return outside
