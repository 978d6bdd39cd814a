"""Heads and models measured on the same masks: which heads hold, the figures, differences, and speeds."""

from __future__ import annotations

import random

import pytest

from maskscore.errors import HeadMismatch, InvalidDocumentError
from maskscore.evaluation import Candidate, ClassPrompts, ScoringSpeed
from maskscore.evaluation.candidate_differences import differences_from_first
from maskscore.evaluation.candidates import heads_by_score, with_fitting_heads
from maskscore.evaluation.measurements import ScoreCollector
from maskscore.heads import HeadApplication
from maskscore.schema import Component, Head, PlattModel, PromptScore, PromptSet, ScoreName, View

PROMPTS = PromptSet(name="p", positive=("a dog",), negative=("sky",))
WEIGHTS = "sha256:w"


def candidate(view: str = "original", model: str | None = None) -> Candidate:
    return Candidate(
        (View.parse(view),), PROMPTS, ClassPrompts({"dog": frozenset({"a dog"})}, ()), "softmax", model=model
    )


def head(name: str, score: ScoreName = "s_pos", *, slope: float = 6.0, weights: str = WEIGHTS) -> HeadApplication:
    document = Head(
        name=name,
        model=PlattModel(score=score, slope=slope, intercept=-slope / 2),
        threshold=0.5,
        weights_digest=weights,
        views="original",
        method="softmax",
        prompts_digest=PROMPTS.digest,
    )
    return HeadApplication(document)


def test_heads_are_taken_where_they_hold() -> None:
    named = heads_by_score([head("a"), head("b", weights="sha256:x")])
    assert list(named) == ["p_keep a", "p_keep b"]
    both = [candidate(), candidate("blur"), candidate(model="large")]
    served = {"default": {WEIGHTS}, "large": {"sha256:x"}}

    def digests(own: Candidate) -> set[str]:
        return served[own.model_name]

    assert [list(one.heads) for one in with_fitting_heads(both, named, digests)] == [["p_keep a"], [], ["p_keep b"]]
    # Of a model that nobody serves yet, the results will tell.
    assert [list(one.heads) for one in with_fitting_heads(both, named)] == [[*named], [], [*named]]
    with pytest.raises(HeadMismatch, match="The head b was fitted to the weights sha256:x, and these masks"):
        with_fitting_heads(both[:1], named, digests)
    with pytest.raises(HeadMismatch, match=r"The head a was fitted to the view original, .* with blur"):
        with_fitting_heads(both[1:2], named)


def test_heads_of_one_name_are_told_apart() -> None:
    first, second = head("a"), head("a", slope=3.0)
    assert list(heads_by_score([first, second])) == [f"p_keep a ({one.head.digest[7:13]})" for one in (first, second)]
    with pytest.raises(InvalidDocumentError, match="The head a is given twice"):
        heads_by_score([first, first])


def collected(own: Candidate, noise: float, seed: int, images: int = 30) -> ScoreCollector:
    """Collect four masks per image, half of them objects; ``p_pos_sum`` is noise, and ``s_pos`` is good."""
    collector, truth, rng = ScoreCollector(own), random.Random(0), random.Random(seed)
    for image in range(images):
        for index in range(4):
            kind = "object" if index % 2 else "background"
            s_pos = min(1.0, max(0.0, 0.5 + (0.25 if index % 2 else -0.25) + truth.gauss(0, 0.1) + rng.gauss(0, noise)))
            best = [PromptScore(text="a dog" if rng.random() < 0.8 else "x", group="positive", score=s_pos)]
            component = Component(id="m", index=index, s_pos=s_pos, s_neg=1 - s_pos, p_pos_sum=rng.random(), top_k=best)
            collector.add(component, image=str(image), kind=kind, category="dog")
    return collector


def test_the_scores_of_heads_are_measured_beside_the_methods_own() -> None:
    (own,) = with_fitting_heads([candidate()], heads_by_score([head("good"), head("bad", "p_pos_sum")]))
    collector = collected(own, 0.0, 1)
    figures = collector.measurement(0.9, None)
    assert figures.main_scores == ["p_pos_sum", "p_keep good", "p_keep bad"]
    good, chance = figures.scores["p_keep good"], figures.scores["p_keep bad"]
    assert good.auroc["all"] is not None
    assert good.auroc["all"].low > 0.9
    assert good.decision is not None
    assert (good.decision.threshold, good.decision.precision.low > 0.8, good.decision.recall.low > 0.8) == (
        0.5,
        True,
        True,
    )
    assert figures.scores["p_pos_sum"].decision is None
    assert good.at_recall is not None
    assert chance.at_recall is not None
    assert good.at_recall.precision.low > chance.at_recall.precision.high
    assert chance.at_recall.recall.value >= 0.9
    assert good.brier is not None
    assert chance.brier is not None
    assert good.brier.high < chance.brier.low
    assert sum(one.masks for one in good.reliability) == 120
    differences = differences_from_first([collector])
    assert [(one.baseline.score, one.entry.score) for one in differences] == [
        ("p_keep good", "p_pos_sum"),
        ("p_keep good", "p_keep bad"),
    ]
    assert all(one.auroc is not None and one.auroc.high < -0.2 and one.masks == 120 for one in differences)
    assert all(one.brier is not None and one.brier.low > 0.1 and one.top_1 is None for one in differences)


def test_models_are_compared_on_the_masks_that_both_have_scored() -> None:
    first, second = collected(candidate(model="a"), 0.0, 1), collected(candidate(model="b"), 0.0, 2, images=20)
    (difference,) = differences_from_first([first, second])
    assert (difference.baseline.model, difference.entry.model, difference.masks) == ("a", "b", 80)
    assert difference.auroc is not None
    assert difference.top_1 is not None
    # Both are noise, and both name four of five dogs.
    assert difference.auroc.low < 0 < difference.auroc.high
    assert difference.top_1.low < 0 < difference.top_1.high


def test_speeds_are_of_runs_that_tell_it() -> None:
    def speed(masks: int = 500, cached: int = 0, others: int = 0) -> ScoringSpeed:
        return ScoringSpeed.of_run(masks, 10.0, workers=2, cached=cached, others=others, price_per_hour=3.6)

    # 1,000,000 masks are 20,000 s, at 0.001 per second.
    assert speed().masks_per_s == 50
    assert speed().cost_per_million == pytest.approx(20.0)
    for unknown, said in (
        (speed(cached=3), "3 of 500 masks came from"),
        (speed(others=7), "7 jobs of others"),
        (speed(masks=0), "no mask was scored"),
    ):
        assert (unknown.masks_per_s, unknown.cost_per_million) == (None, None)
        assert said in str(unknown.unusable)
