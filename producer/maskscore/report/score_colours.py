"""The colour scale of scores: a grade with name, meaning and colour per component."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from maskscore.schema import Component

__all__ = [
    "CLEAR_COSINE",
    "COSINE_GRADES",
    "MULTIPLIER_GRADES",
    "NO_GRADE",
    "SIGMOID_GRADES",
    "Grade",
    "grade_of",
    "in_order",
]


@dataclass(frozen=True, slots=True)
class Grade:
    """One step of a scale; ``meaning`` is for the legend, ``key`` for the page's ids."""

    key: str
    name: str
    meaning: str
    colour: str


# Okabe and Ito's palette: told apart with any colour vision, and dark to light to dark along the scale.
_BLUE, _SKY, _YELLOW, _VERMILION = "#0072b2", "#56b4e9", "#f0e442", "#d55e00"

MULTIPLIER_GRADES: Final = {
    2.0: Grade("m20", "2.0", "surely an object", _BLUE),
    1.0: Grade("m10", "1.0", "probably an object", _SKY),
    0.5: Grade("m05", "0.5", "unclear", _YELLOW),
    0.1: Grade("m01", "0.1", "background or fragment", _VERMILION),
}

SIGMOID_GRADES: Final = {
    2.0: Grade("s20", "2.0", "surely an object", _BLUE),
    1.0: Grade("s10", "1.0", "probably an object", _SKY),
    0.5: Grade("s05", "0.5", "no prompt fits", _YELLOW),
    0.1: Grade("s01", "0.1", "background or fragment", _VERMILION),
}

# CLIP's logit scale is 100 at most, so a difference of 0.02 is odds of e² (7 to 1) between the two best prompts.
CLEAR_COSINE: Final = 0.02

COSINE_GRADES: Final = (
    Grade("c1", f"> {CLEAR_COSINE}", "clearly positive", _BLUE),
    Grade("c2", "> 0", "positive", _SKY),
    Grade("c3", f"> −{CLEAR_COSINE}", "negative", _YELLOW),
    Grade("c4", f"≤ −{CLEAR_COSINE}", "clearly negative", _VERMILION),
)

NO_GRADE: Final = Grade("none", "–", "not scored", "#8a8a8a")

_ORDER: Final = {
    grade: place
    for place, grade in enumerate(
        (*MULTIPLIER_GRADES.values(), *SIGMOID_GRADES.values(), *COSINE_GRADES, NO_GRADE),
    )
}


def in_order(grades: Iterable[Grade]) -> list[Grade]:
    """Return different grades as a legend lists them: from surely an object down to not scored."""
    return sorted(set(grades), key=lambda grade: _ORDER[grade])


def grade_of(component: Component) -> Grade:
    """Return the grade by multiplier; cosine scores have none, so there the difference s_pos − s_neg decides."""
    if component.semantic_multiplier is not None:
        # Only softmax has sums.
        grades = SIGMOID_GRADES if component.p_pos_sum is None else MULTIPLIER_GRADES
        return grades.get(component.semantic_multiplier, NO_GRADE)
    if component.skipped is not None or component.s_pos is None or component.s_neg is None:
        return NO_GRADE
    difference = component.s_pos - component.s_neg
    bounds = (CLEAR_COSINE, 0.0, -CLEAR_COSINE)
    return COSINE_GRADES[next((step for step, bound in enumerate(bounds) if difference > bound), len(bounds))]
