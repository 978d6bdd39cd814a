"""Histogram of scores, drawn as inline SVG that a screen reader can read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from markupsafe import Markup, escape

from maskscore.schema import Component

__all__ = ["Histogram"]

_BINS: Final = 20
_WIDTH, _HEIGHT, _TOP, _BOTTOM, _SIDE = 400, 132, 18, 20, 8


def _difference(component: Component) -> float | None:
    return None if component.s_pos is None or component.s_neg is None else component.s_pos - component.s_neg


def _logarithm(component: Component) -> float | None:
    # A probability may be too small for a float.
    return None if component.s_pos is None else math.log10(max(component.s_pos, 1e-300))


class Histogram:
    """Counts of one number per component; what is out of range counts in the first or last bin."""

    def __init__(
        self, name: str, low: float, high: float, value: Callable[[Component], float | None], *, open_ended: bool = True
    ) -> None:
        self.name = name
        self._low, self._high = low, high
        self._value = value
        self._open_ended = open_ended
        self.counts = [0] * _BINS

    @classmethod
    def of_method(cls, method: str) -> Histogram:
        """Return the one that shows a method's scores best.

        That is the positive sum; of independent probabilities, which lie between 1e-7 and 1, the logarithm of the best
        positive; or the difference of cosines.
        """
        if method == "cosine":
            return cls("s_pos − s_neg (cosines)", -0.1, 0.1, _difference)
        if method == "sigmoid":
            return cls("log₁₀ s_pos", -5.0, 0.0, _logarithm)
        return cls("p_pos_sum", 0.0, 1.0, lambda component: component.p_pos_sum, open_ended=False)

    def add(self, component: Component) -> None:
        """Count a component; one without a score is not counted."""
        value = self._value(component)
        if value is None or not math.isfinite(value):
            return
        step = math.floor((value - self._low) / (self._high - self._low) * _BINS)
        self.counts[min(max(step, 0), _BINS - 1)] += 1

    @property
    def total(self) -> int:
        """How many components were counted."""
        return sum(self.counts)

    def svg(self) -> Markup:
        """Return the picture; its title and description say the same in words."""
        most = max(1, *self.counts)
        width = (_WIDTH - 2 * _SIDE) / _BINS
        tall = _HEIGHT - _TOP - _BOTTOM
        bars = []
        for step, count in enumerate(self.counts):
            # A bin that holds anything is seen.
            height = max(1.5, tall * count / most) if count else 0.0
            if count:
                bars.append(
                    f'<rect x="{_SIDE + step * width + 1:.1f}" y="{_TOP + tall - height:.1f}" width="{width - 2:.1f}" '
                    f'height="{height:.1f}"><title>{escape(self._range(step))}: {count:,}</title></rect>'
                )
        base = _TOP + tall
        ticks = "".join(
            f'<text x="{_SIDE + part * (_WIDTH - 2 * _SIDE):.0f}" y="{_HEIGHT - 4}" text-anchor="{anchor}">'
            f"{escape(self._tick(self._low + part * (self._high - self._low)))}</text>"
            for part, anchor in ((0.0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1.0, "end"))
        )
        return Markup(
            f'<svg class="histogram" role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
            f"<title>Histogram of {escape(self.name)} over {self.total:,} masks</title>"
            f"<desc>{escape(self._words())}</desc>{''.join(bars)}"
            f'<path d="M{_SIDE} {base + 0.5}H{_WIDTH - _SIDE}"/>{ticks}'
            f'<text x="{_SIDE}" y="12">tallest bar: {most if self.total else 0:,}</text></svg>'
        )

    def _words(self) -> str:
        said = [f"{self._range(step)}: {count:,}" for step, count in enumerate(self.counts) if count]
        return "; ".join(said) + "." if said else "No mask has a score."

    def _range(self, step: int) -> str:
        size = (self._high - self._low) / _BINS
        start, end = self._low + step * size, self._low + (step + 1) * size
        if self._open_ended and step == 0:
            return f"below {self._tick(end)}"
        if self._open_ended and step == _BINS - 1:
            return f"{self._tick(start)} and above"
        return f"{self._tick(start)} to {self._tick(end)}"

    def _tick(self, value: float) -> str:
        return f"{value:.2f}".replace("-", "−")
