"""Scores equal a plain PyTorch computation, and the multiplier follows its rules around each threshold."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskscore.errors import JobError
from maskscore.schema.job import ScoringOptions, SigmoidThresholds, Thresholds
from maskscore.schema.prompt_set import PromptSet
from maskscore_worker.scoring import Scores, check_method, score


def up(value: float) -> float:
    return math.nextafter(value, 2)


def down(value: float) -> float:
    return math.nextafter(value, -2)


@pytest.mark.parametrize(
    ("pos", "neg", "expected"),
    [
        (0.3, up(0.5), 0.1),
        (0.5, 0.5, 1.0),
        (0.9, 0.6, 0.1),
        (up(0.7), down(0.2), 2.0),
        (0.7, down(0.2), 1.0),
        (up(0.7), 0.2, 1.0),
        (up(0.4), 0.3, 1.0),
        (0.4, 0.3, 0.5),
        (0.4, 0.5, 0.5),
        (0.0, 0.0, 0.5),
        (1.0, 0.0, 2.0),
        (0.0, 1.0, 0.1),
    ],
)
def test_the_rules_at_and_around_their_thresholds(pos: float, neg: float, expected: float) -> None:
    assert Thresholds().multiplier(pos, neg) == expected


def test_other_thresholds_move_the_rules() -> None:
    thresholds = Thresholds(reject_neg_sum=0.9, strong_pos_sum=0.3, strong_neg_sum=0.8, accept_pos_sum=0.1)
    cases = [(0.05, 0.95), (0.35, 0.6), (0.2, 0.7), (0.05, 0.7)]
    assert [thresholds.multiplier(pos, neg) for pos, neg in cases] == [0.1, 2.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("pos", "neg", "expected"),
    [
        (0.0, 0.0, 0.5),
        (0.01, 0.01, 0.5),
        (down(0.01), 0.0, 0.5),
        (up(0.01), 0.0, 1.0),
        (0.0, up(0.01), 0.1),
        (0.3, up(0.3), 0.1),
        (0.3, 0.3, 1.0),
        (0.1, 0.0, 1.0),
        (up(0.1), down(0.01), 2.0),
        (up(0.1), 0.01, 1.0),
        (1.0, 1.0, 1.0),
    ],
)
def test_the_rules_of_independent_probabilities_at_their_thresholds(pos: float, neg: float, expected: float) -> None:
    assert SigmoidThresholds().multiplier(pos, neg) == expected


def prompts(positive: int, negative: int, neutral: int = 0) -> PromptSet:
    return PromptSet(
        name="x",
        positive=tuple(f"p{n}" for n in range(positive)),
        negative=tuple(f"n{n}" for n in range(negative)),
        neutral=tuple(f"z{n}" for n in range(neutral)),
    )


def unit(rng: np.random.Generator, rows: int, columns: int = 16) -> npt.NDArray[np.float32]:
    values = rng.standard_normal((rows, columns)).astype(np.float32)
    normalised: npt.NDArray[np.float32] = values / np.linalg.norm(values, axis=1, keepdims=True)
    return normalised


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.floats(1, 100), st.integers(0, 10_000))
def test_softmax_scores_equal_torchs(positive: int, negative: int, neutral: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    asked = prompts(positive, negative, neutral)
    features, texts = unit(rng, 3), unit(rng, positive + negative + neutral)
    options = ScoringOptions(top_k=100)
    logits = scale * torch.from_numpy(features).double() @ torch.from_numpy(texts).double().T
    expected = logits.softmax(dim=1)
    for row, scores in zip(expected, score(features, texts, asked, logit_scale=scale, options=options), strict=True):
        pos, neg = row[:positive], row[positive : positive + negative]
        assert scores.s_pos == pytest.approx(float(pos.max()))
        assert scores.s_neg == pytest.approx(float(neg.max()))
        assert scores.s_pos_text == asked.positive[int(pos.argmax())]
        assert scores.s_neg_text == asked.negative[int(neg.argmax())]
        assert scores.p_pos_sum == pytest.approx(float(pos.sum()))
        assert scores.p_neg_sum == pytest.approx(float(neg.sum()))
        assert scores.p_pos_sum is not None
        assert scores.p_neg_sum is not None
        total = scores.p_pos_sum + scores.p_neg_sum
        assert total == pytest.approx(1 - float(row[positive + negative :].sum()))
        assert scores.semantic_multiplier == Thresholds().multiplier(scores.p_pos_sum, scores.p_neg_sum)
        assert scores.top_k is not None
        assert {entry.text: entry.score for entry in scores.top_k} == pytest.approx(
            dict(zip(asked.texts, row.tolist(), strict=True))
        )
        assert [entry.score for entry in scores.top_k] == sorted((e.score for e in scores.top_k), reverse=True)
        assert all(
            entry.text[0] == {"positive": "p", "negative": "n", "neutral": "z"}[entry.group] for entry in scores.top_k
        )


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.floats(1, 100), st.floats(-20, 5))
def test_sigmoid_scores_equal_torchs_and_do_not_depend_on_each_other(
    positive: int, negative: int, neutral: int, scale: float, bias: float
) -> None:
    rng = np.random.default_rng(positive)
    asked = prompts(positive, negative, neutral)
    features, texts = unit(rng, 3), unit(rng, positive + negative + neutral)
    options = ScoringOptions(method="sigmoid", top_k=100)
    logits = (scale * torch.from_numpy(features).double()) @ torch.from_numpy(texts).double().T + bias
    rows = score(features, texts, asked, scale, options, bias)
    for row, scores in zip(logits.sigmoid(), rows, strict=True):
        pos, neg = row[:positive], row[positive : positive + negative]
        assert (scores.s_pos, scores.s_neg) == pytest.approx((float(pos.max()), float(neg.max())))
        assert (scores.p_pos_sum, scores.p_neg_sum) == (None, None)
        assert scores.semantic_multiplier == SigmoidThresholds().multiplier(scores.s_pos, scores.s_neg)
        assert {entry.text: entry.score for entry in scores.top_k or ()} == pytest.approx(
            dict(zip(asked.texts, row.tolist(), strict=True))
        )
    alone = score(features, texts[[0, positive]], prompts(1, 1), scale, options, bias)
    first = {entry.text: entry.score for entry in rows[0].top_k or ()}
    assert (alone[0].s_pos, alone[0].s_neg) == pytest.approx((first["p0"], first["n0"]))


def test_a_probability_that_a_float_cannot_hold_is_a_zero_or_a_one() -> None:
    feature, texts = np.ones((1, 1), np.float32), np.array([[1], [-1]], np.float32)
    (scores,) = score(feature, texts, prompts(1, 1), 2000.0, ScoringOptions(method="sigmoid"), 0.0)
    assert (scores.s_pos, scores.s_neg, scores.semantic_multiplier) == (1.0, 0.0, 2.0)


def test_a_model_without_a_bias_refuses_sigmoid_and_nothing_else() -> None:
    check_method(ScoringOptions(method="sigmoid"), -10.0, "SigLIP")
    check_method(ScoringOptions(), None, "ViT-B-32")
    with pytest.raises(JobError, match="ViT-B-32 has no logit_bias") as refused:
        check_method(ScoringOptions(method="sigmoid"), None, "ViT-B-32")
    assert refused.value.code == "no_logit_bias"


def test_cosines_have_no_sums_and_no_multiplier() -> None:
    rng = np.random.default_rng(3)
    features, texts = unit(rng, 2), unit(rng, 5)
    options = ScoringOptions(method="cosine", top_k=1)
    for feature, scores in zip(
        features, score(features, texts, prompts(3, 2), logit_scale=50, options=options), strict=True
    ):
        cosines = texts.astype(float) @ feature.astype(float)
        assert (scores.s_pos, scores.s_neg) == pytest.approx((cosines[:3].max(), cosines[3:].max()))
        assert (scores.p_pos_sum, scores.p_neg_sum, scores.semantic_multiplier) == (None, None, None)
        assert scores.top_k is not None
        assert scores.top_k[0].score == pytest.approx(cosines.max())


def test_with_equal_similarities_the_larger_group_wins_and_the_first_prompt() -> None:
    texts = np.ones((90, 1), np.float32)
    (scores,) = score(
        np.ones((1, 1), np.float32), texts, prompts(80, 10), logit_scale=100, options=ScoringOptions(top_k=2)
    )
    assert scores.p_pos_sum == pytest.approx(80 / 90)
    assert scores.s_pos_text == "p0"
    assert scores.top_k is not None
    assert [entry.text for entry in scores.top_k] == ["p0", "p1"]


@pytest.mark.parametrize("method", ["softmax", "cosine"])
def test_equal_features_have_equal_scores_to_the_last_bit_whatever_is_scored_beside_them(method: str) -> None:
    rng = np.random.default_rng(5)
    asked = prompts(61, 25, 3)
    features, texts = unit(rng, 67, 64), unit(rng, 89, 64)
    options = ScoringOptions.model_validate({"method": method, "top_k": 100})

    def scored(rows: npt.NDArray[np.float32]) -> list[Scores]:
        return score(rows, texts, asked, logit_scale=100.0, options=options)

    whole = scored(features)
    assert [scored(features[n : n + 1])[0] for n in range(len(features))] == whole
    for start, stop in ((0, 7), (3, 8), (1, 65), (60, 67)):
        assert scored(features[start:stop]) == whole[start:stop]
    # Rows of another layout in memory, and the same row in every place.
    assert scored(np.asfortranarray(features)[::-1])[::-1] == whole
    assert scored(np.repeat(features[9:10], 66, axis=0)) == [whole[9]] * 66
