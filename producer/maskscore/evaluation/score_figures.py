"""What one score of a candidate tells objects from negatives by, and what is known of each class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from maskscore.statistics import (
    Estimate,
    OperatingPoint,
    Ranked,
    ReliabilityBin,
    hits_of_images,
    operating_curve,
    operating_point,
    point_at_recall,
    reliability_bins,
)

__all__ = ["AGAINST", "DIFFERENCE", "ClassFigures", "ScoreFigures", "ScoredMask", "class_figures", "score_figures"]

AGAINST: Final[Mapping[str, tuple[str, ...]]] = {
    "all": ("background", "fragment"),
    "background": ("background",),
    "fragment": ("fragment",),
}
"""The kinds of negatives that objects are separated from, by name."""

DIFFERENCE: Final = "s_pos - s_neg"
"""The one score that is no probability."""


@dataclass(frozen=True, slots=True)
class ScoredMask:
    """A mask with its scores by name.

    ``index`` is its place in the job. ``rank`` is the place of the best prompt of its class among the positive ones, 0
    where none is among the five best; ``None`` where the class has no prompt, and for negatives. ``kept`` says of each
    head's score whether the head keeps the mask.
    """

    image: str
    index: int
    kind: str
    category: str
    values: Mapping[str, float]
    rank: int | None = None
    kept: Mapping[str, bool] | None = None


@dataclass(frozen=True, slots=True)
class ScoreFigures:
    """One score, all estimates with 95 % intervals by image; objects are to be kept, negatives are not.

    ``auroc`` is by what objects are separated from; ``None`` where one side has no mask. ``at_recall`` is the point
    with the highest threshold that has the recall asked for. ``brier`` is the mean squared error, and ``reliability``
    the bins, of a score that is a probability. ``decision`` is what a head keeps at its own threshold.
    """

    auroc: dict[str, Estimate | None]
    curve: list[OperatingPoint]
    at_recall: OperatingPoint | None
    decision: OperatingPoint | None
    brier: Estimate | None
    reliability: list[ReliabilityBin]


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """The objects of one class: ``top_1`` and ``top_5`` where it has a prompt, AUROC against all negatives by score."""

    objects: int
    top_1: Estimate | None
    top_5: Estimate | None
    auroc: dict[str, Estimate | None]


def ranked(score: str, masks: Sequence[ScoredMask], kinds: Collection[str]) -> Ranked:
    """Return the masks of these kinds that have the score, in its order."""
    return Ranked((mask.values[score], mask.image) for mask in masks if mask.kind in kinds and score in mask.values)


def score_figures(score: str, masks: Sequence[ScoredMask], *, recall: float, threshold: float | None) -> ScoreFigures:
    """Measure a score; ``threshold`` is that of the head whose score it is."""
    rows = [mask for mask in masks if score in mask.values]
    objects = ranked(score, rows, ("object",))
    images = [mask.image for mask in rows]
    values = [mask.values[score] for mask in rows]
    hits = [mask.kind == "object" for mask in rows]
    decision = None
    if threshold is not None:
        kept = [float((mask.kept or {})[score]) for mask in rows]
        point = operating_point(1.0, images, kept, hits, hits)
        decision = point and OperatingPoint(threshold, point.kept, point.precision, point.recall)
    probability = score != DIFFERENCE and bool(rows)
    return ScoreFigures(
        auroc={name: Estimate.of_auroc(objects, ranked(score, rows, kinds)) for name, kinds in AGAINST.items()},
        curve=operating_curve(images, values, hits, hits),
        at_recall=point_at_recall(recall, images, values, hits, hits),
        decision=decision,
        brier=Estimate.of_mean(squared_errors(score, rows), images) if probability else None,
        reliability=reliability_bins(images, values, hits) if probability else [],
    )


def squared_errors(score: str, masks: Sequence[ScoredMask]) -> list[float]:
    """Return the squared error of each mask's probability that it is an object (Brier, 1950)."""
    return [(mask.values[score] - (mask.kind == "object")) ** 2 for mask in masks]


def top_hits(masks: Sequence[ScoredMask], places: int) -> dict[object, tuple[int, int]]:
    """Return, by image, how many of the ranked masks are among the first ``places``, and how many there are."""
    ranked = [mask for mask in masks if mask.rank is not None]
    return hits_of_images([mask.image for mask in ranked], [0 < (mask.rank or 0) <= places for mask in ranked])


def top_share(masks: Sequence[ScoredMask], places: int) -> Estimate | None:
    """Return the share of the ranked masks that are among the first ``places``; ``None`` without any."""
    hits = top_hits(masks, places)
    return Estimate.of_share(list(hits.values())) if hits else None


def class_figures(masks: Sequence[ScoredMask], scores: Sequence[str]) -> dict[str, ClassFigures]:
    """Measure each class, the most frequent first."""
    by_class: dict[str, list[ScoredMask]] = defaultdict(list)
    for mask in masks:
        if mask.kind == "object":
            by_class[mask.category].append(mask)
    # All negatives are sorted once, since every class is compared with them.
    negatives = {score: ranked(score, masks, AGAINST["all"]) for score in scores}
    return {
        name: ClassFigures(
            objects=len(own),
            top_1=top_share(own, 1),
            top_5=top_share(own, 5),
            auroc={score: Estimate.of_auroc(ranked(score, own, ("object",)), negatives[score]) for score in scores},
        )
        for name, own in sorted(by_class.items(), key=lambda one: (-len(one[1]), one[0]))
    }
