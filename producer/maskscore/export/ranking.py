"""The rank score of a mask: a weighted product of its scores and of fields of the upstream tool."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from maskscore.errors import InvalidDocumentError
from maskscore.schema import Component

__all__ = ["DEFAULT_WEIGHTS", "OWN_VALUES", "SCORES", "Ranking"]

DEFAULT_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {"multiplier": 1.0, "predicted_iou": 1.0, "stability_score": 1.0}
)
"""Multiplier times the two qualities that SAM's mask generator states, both between 0 and 1."""

SCORES: Final = {
    "multiplier": "semantic_multiplier",
    "s_pos": "s_pos",
    "p_pos_sum": "p_pos_sum",
    "p_keep": "p_keep",
}
"""A mask's own values that a ranking may name, and their fields."""


OWN_VALUES: Final = (*SCORES, "area")
"""What a ranking may name beside fields of the upstream tool."""


class Ranking:
    """A product of powers: each value raised to its weight.

    ``weights`` are exponents by name. ``multiplier``, ``s_pos``, ``p_pos_sum`` and ``p_keep`` are the mask's own,
    ``area`` is its share of the image's pixels (0 to 1); every other name is a field of the upstream tool. A value that
    a mask does not have, or that is no finite number, counts 1, and a negative one 0. A weight of 0 leaves its factor
    out.
    Raises
    :class:`~maskscore.errors.InvalidDocumentError` for a weight that is negative or not finite.
    """

    def __init__(self, weights: Mapping[str, float] = DEFAULT_WEIGHTS) -> None:
        for name, weight in weights.items():
            if not math.isfinite(weight) or weight < 0:
                raise InvalidDocumentError(
                    f"The weight of {name!r} in the ranking is {weight}; it must be a number of 0 or more."
                )
        self.weights = MappingProxyType({name: float(weight) for name, weight in weights.items() if weight})

    def score(self, component: Component, *, pixels: int) -> float | None:
        """Return the rank score, 0 or more, the larger the better; ``None`` for a mask that was skipped.

        ``pixels`` is the image's width times its height.
        """
        return None if component.skipped is not None else self.score_of(self.values(component, pixels=pixels))

    def score_of(self, values: Mapping[str, float]) -> float:
        """Return the rank score of a mask's factors, as :meth:`values` returns them."""
        product = 1.0
        for name, value in values.items():
            try:
                product *= max(0.0, value) ** self.weights[name]
            except OverflowError:
                product = math.inf
        # What overflows is still a number in JSON; 0 times infinity is no best mask.
        return 0.0 if math.isnan(product) else min(product, 1e300)

    def values(self, component: Component, *, pixels: int) -> dict[str, float]:
        """Return those of the factors that the mask has."""
        found = ((name, _number(_value(name, component, pixels))) for name in self.weights)
        return {name: value for name, value in found if value is not None}

    def __str__(self) -> str:
        powers = (name if weight == 1 else f"{name}^{weight:g}" for name, weight in self.weights.items())
        return " × ".join(powers) or "1"


def _value(name: str, component: Component, pixels: int) -> Any:
    if name in SCORES:
        return getattr(component, SCORES[name])
    if name == "area":
        return component.area / pixels if component.area is not None and pixels else None
    return component.upstream.get(name)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
