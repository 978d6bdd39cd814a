"""Differences between candidates and heads on the same masks: the second less the first, paired by mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maskscore.evaluation.measurements import ScoreCollector
from maskscore.evaluation.score_figures import AGAINST, DIFFERENCE, ScoredMask, ranked, squared_errors, top_hits
from maskscore.statistics import Difference, Ranked

__all__ = ["CandidateDifference", "Entry", "differences_from_first"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A score of a candidate; ``source`` names scores that were there already."""

    model: str
    view: str
    prompts: str
    score: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class CandidateDifference:
    """``entry`` less ``baseline`` on the masks that both have scored, with 95 % intervals by image.

    ``auroc`` is against all negatives. ``top_1`` is ``None`` for two scores of one candidate, ``brier`` where one of
    the scores is no probability, and each where there are no such masks.
    """

    baseline: Entry
    entry: Entry
    masks: int
    auroc: Difference | None
    top_1: Difference | None
    brier: Difference | None


def differences_from_first(collectors: Sequence[ScoreCollector]) -> list[CandidateDifference]:
    """Compare every head's score and every method's own score with the first head's, else with the first own score."""
    listed = [(collector, score) for collector in collectors for score in collector.main_scores]
    first = next((one for one in listed if one[1] in one[0].candidate.heads), listed[0])
    return [_difference(first, other) for other in listed if other != first]


def _difference(first: tuple[ScoreCollector, str], second: tuple[ScoreCollector, str]) -> CandidateDifference:
    by_mask = [
        {(mask.image, mask.index): mask for mask in collector.masks if score in mask.values}
        for collector, score in (first, second)
    ]
    # In one order, which the pairs need.
    both = [key for key in by_mask[0] if key in by_mask[1]]
    masks = [[own[key] for key in both] for own in by_mask]
    scores = first[1], second[1]
    errors = [squared_errors(score, own) for score, own in zip(scores, masks, strict=True)]
    return CandidateDifference(
        baseline=_entry(*first),
        entry=_entry(*second),
        masks=len(both),
        auroc=Difference.of_aurocs(_sides(scores[0], masks[0]), _sides(scores[1], masks[1])),
        top_1=None if first[0] is second[0] else _top_1(masks[0], masks[1]),
        brier=None
        if DIFFERENCE in scores or not both
        else Difference.of_means(errors[0], errors[1], [image for image, _ in both]),
    )


def _top_1(first: Sequence[ScoredMask], second: Sequence[ScoredMask]) -> Difference | None:
    # A class may have a prompt in one of two sets alone.
    pairs = enumerate(zip(first, second, strict=True))
    ranked = [row for row, (one, other) in pairs if one.rank is not None and other.rank is not None]
    return Difference.of_shares(*(top_hits([own[row] for row in ranked], 1) for own in (first, second)))


def _sides(score: str, masks: Sequence[ScoredMask]) -> tuple[Ranked, Ranked]:
    return ranked(score, masks, ("object",)), ranked(score, masks, AGAINST["all"])


def _entry(collector: ScoreCollector, score: str) -> Entry:
    candidate = collector.candidate
    return Entry(candidate.model_name, candidate.text, candidate.prompts.name, score, candidate.source)
