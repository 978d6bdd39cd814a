"""The rank score is a product of powers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from maskscore.errors import InvalidDocumentError
from maskscore.export.ranking import Ranking
from maskscore.schema.result import Component, Skipped


def component(multiplier: float | None = 2.0, area: int | None = 300, **upstream: Any) -> Component:
    return Component(
        id="m", index=0, area=area, s_pos=0.5, p_pos_sum=0.8, semantic_multiplier=multiplier, upstream=upstream
    )


def test_by_default_it_is_the_multiplier_times_sams_two_qualities() -> None:
    assert Ranking().score(component(predicted_iou=0.9, stability_score=0.95), pixels=1000) == pytest.approx(1.71)
    assert str(Ranking()) == "multiplier × predicted_iou × stability_score"


def test_weights_are_exponents_and_area_is_a_share_of_the_image() -> None:
    ranking = Ranking({"multiplier": 2, "p_pos_sum": 1, "s_pos": 0.5, "area": 0.1, "confidence": 3})
    expected = 2.0**2 * 0.8 * 0.5**0.5 * (300 / 1200) ** 0.1 * 0.7**3
    assert ranking.score(component(confidence=0.7), pixels=1200) == pytest.approx(expected)
    assert str(ranking) == "multiplier^2 × p_pos_sum × s_pos^0.5 × area^0.1 × confidence^3"


@pytest.mark.parametrize("value", [None, "0.5", True, math.nan, math.inf, [0.5], 10**400])
def test_what_is_no_number_counts_one(value: Any) -> None:
    assert Ranking().score(component(predicted_iou=value), pixels=1000) == 2.0


def test_masks_without_a_multiplier_are_ranked_by_the_rest() -> None:
    assert Ranking().score(component(None, None, predicted_iou=0.5), pixels=1000) == 0.5
    assert Ranking({"area": 1}).score(component(area=None), pixels=1000) == 1.0


def test_a_negative_value_counts_nothing_and_a_weight_of_nothing_leaves_it_out() -> None:
    assert Ranking().score(component(predicted_iou=-0.01), pixels=1000) == 0.0
    ranking = Ranking({"multiplier": 1, "predicted_iou": 0})
    assert ranking.score(component(predicted_iou=0), pixels=1000) == 2.0
    # Nor is it a factor that a mask lacks.
    assert dict(ranking.weights) == {"multiplier": 1.0}


def test_scores_are_finite() -> None:
    huge = Ranking({"a": 200, "b": 200, "c": 1}).score(component(a=1e300, b=1e300, c=0), pixels=1)
    assert huge == 0.0
    assert Ranking({"a": 1, "b": 1}).score(component(a=1e300, b=1e300), pixels=1) == 1e300


def test_skipped_masks_have_none() -> None:
    skipped = Component(id="m", index=0, skipped=Skipped(code="empty_mask", message="The mask has no pixel."))
    assert Ranking().score(skipped, pixels=1000) is None


@pytest.mark.parametrize("weight", [-1, math.nan, math.inf])
def test_weights_that_are_none_are_refused(weight: float) -> None:
    with pytest.raises(InvalidDocumentError, match="'area'"):
        Ranking({"area": weight})
