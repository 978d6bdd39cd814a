"""Two measures with their uncertainty: a share of successes, and the area under the ROC curve.

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

__all__ = ["Estimate", "Scored", "auroc", "auroc_interval", "share_interval", "t_quantile"]

Scored = tuple[float, Hashable]
"""A mask's score, and the image that the mask is of."""


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
    def of_auroc(cls, positives: Sequence[Scored], negatives: Sequence[Scored]) -> Estimate | None:
        """Return the area under the ROC curve; ``None`` where one side has no mask."""
        area = auroc([score for score, _ in positives], [score for score, _ in negatives])
        return None if area is None else cls(area, *auroc_interval(positives, negatives))


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


def auroc(positives: Sequence[float], negatives: Sequence[float]) -> float | None:
    """Return the probability that a positive scores above a negative, ties counted half; ``None`` if one has none.

    The Mann-Whitney statistic: the area under the ROC curve.
    """
    if not positives or not negatives:
        return None
    return sum(_placements(positives, negatives)) / len(positives)


def auroc_interval(positives: Sequence[Scored], negatives: Sequence[Scored]) -> tuple[float, float]:
    """Return the 95 % interval of the area that these masks have; both sides have one at least.

    Newcombe's fifth method (Statistics in Medicine 25, 2006): the areas from which the one that was found is not
    farther than a quantile of standard errors by Hanley and McNeil (Radiology 143, 1982), with the mean of both counts
    in place of each. Unlike theirs it has a width at an area of 1. The counts are divided by the design effect: the
    area's variance by the jackknife over images (by Obuchowski, Biometrics 53, 1997, where one image holds all of a
    side) over that with every mask by itself
    (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988), and 1 at least. Where no mask is on the wrong side, the
    data do not tell how alike the masks of an image are, and the counts are those of images. From one image follows
    nothing about others: the interval is 0 to 1.
    """
    images = len({image for _, image in (*positives, *negatives)})
    if images < 2:
        return 0.0, 1.0
    above = _placements([score for score, _ in positives], [score for score, _ in negatives])
    below = [1 - share for share in _placements([score for score, _ in negatives], [score for score, _ in positives])]
    area = sum(above) / len(above)
    if area in (0.0, 1.0):
        objects, others = (float(len({image for _, image in side})) for side in (positives, negatives))
    else:
        clustered = _jackknife_variance(positives, negatives, above, below)
        alone = _variance(above, below, list(range(len(above))), [-1 - number for number in range(len(below))])
        effect = max(1.0, clustered / alone) if alone else 1.0
        objects, others = len(above) / effect, len(below) / effect
    quantile = t_quantile(_degrees(Counter(image for _, image in (*positives, *negatives)).values()))

    def apart(truth: float) -> bool:
        more = max(0.0, (objects + others) / 2 - 1) * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        return abs(area - truth) > quantile * math.sqrt(truth * (1 - truth) * (1 + more) / (objects * others))

    return _border(area, 0.0, apart), _border(area, 1.0, apart)


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
        without = [(hits - own) / (masks - number) for own, number in by_image]
        variance = (images - 1) / images * sum((other - share) ** 2 for other in without)
        count = masks / max(1.0, variance * masks / (share * (1 - share)))
    square = t_quantile(_degrees([number for _, number in by_image])) ** 2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = (
        math.sqrt(square) / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    )
    return 0.0 if hits == 0 else max(0.0, middle - half), 1.0 if hits == masks else min(1.0, middle + half)


def _placements(scores: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return for each score the share of the others that it is above, ties counted half."""
    ordered = sorted(others)
    return [(bisect_left(ordered, score) + bisect_right(ordered, score)) / 2 / len(ordered) for score in scores]


def _degrees(masks_per_image: Iterable[int]) -> int:
    """Return the degrees of freedom: the effective number of images less one, and 1 at least."""
    counts = list(masks_per_image)
    # A product of integers, and so no rounding where all images have as many masks.
    return max(1, sum(counts) ** 2 // sum(count * count for count in counts) - 1)


def _jackknife_variance(
    positives: Sequence[Scored], negatives: Sequence[Scored], above: Sequence[float], below: Sequence[float]
) -> float:
    """Return the variance of an area by leaving out one image at a time; ``below`` as in :func:`_variance`."""
    own: dict[Hashable, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    lost: dict[Hashable, float] = defaultdict(float)
    for (score, image), share in zip(positives, above, strict=True):
        own[image][0].append(score)
        lost[image] += share * len(negatives)
    for (score, image), share in zip(negatives, below, strict=True):
        own[image][1].append(score)
        lost[image] += share * len(positives)
    if any(len(first) == len(positives) or len(second) == len(negatives) for first, second in own.values()):
        return _variance(above, below, [image for _, image in positives], [image for _, image in negatives])
    area = sum(above) / len(above)
    total = sum(above) * len(negatives)
    squares = 0.0
    for image, (first, second) in own.items():
        within = sum(_placements(first, second)) * len(second) if second else 0.0
        left = (len(positives) - len(first)) * (len(negatives) - len(second))
        squares += ((total - lost[image] + within) / left - area) ** 2
    return (len(own) - 1) / len(own) * squares


def _variance(
    above: Sequence[float], below: Sequence[float], images: Sequence[Hashable], others: Sequence[Hashable]
) -> float:
    """Return the variance of an area by Obuchowski; ``below`` is each negative's share of positives above it."""
    area = sum(above) / len(above)
    sums: dict[Hashable, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for side, (shares, clusters) in enumerate(((above, images), (below, others))):
        for share, cluster in zip(shares, clusters, strict=True):
            sums[cluster][side] += share - area
    own = [sum(pair[side] ** 2 for pair in sums.values()) for side in (0, 1)]
    both = sum(pair[0] * pair[1] for pair in sums.values())
    counts = [len(set(clusters)) for clusters in (images, others)]
    first, second = (
        total * count / (count - 1) if count > 1 else total for total, count in zip(own, counts, strict=True)
    )
    mixed = both * len(sums) / (len(sums) - 1) if len(sums) > 1 else both
    return first / len(above) ** 2 + second / len(below) ** 2 + 2 * mixed / (len(above) * len(below))


def _border(inside: float, outside: float, apart: Callable[[float], bool]) -> float:
    """Halve the way between a value that is near and one that may be apart, until they are next to each other."""
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if apart(middle) else (middle, outside)
    return outside
