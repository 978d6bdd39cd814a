"""The SVG chart of an evaluation: a dot with its 95 % interval by image, per candidate and measure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from maskscore.evaluation.measurements import Measurement
from maskscore.statistics import Estimate

__all__ = ["draw"]

_WIDTH, _LEFT, _RIGHT, _GAP, _ROW, _TOP = 860, 250, 20, 26, 24, 44
_STYLE: Final = "font:12px system-ui,sans-serif;fill:#24292f"
_COLOURS: Final = ("#1a7f37", "#0969da", "#bc4c00")
_NOTE: Final = "lines: 95 % intervals by image; masks of one image are not independent"
_PANELS: Final = ("true class first", "AUROC: backgrounds", "AUROC: fragments")


def draw(measurements: Sequence[Measurement]) -> str:
    """Return the SVG document: a row per candidate, a panel per measure, all from 0 to 1.

    AUROC is that of ``p_pos_sum`` (method sigmoid: ``s_pos``), or of ``s_pos - s_neg`` where there are no
    probabilities.
    """
    height = _TOP + _ROW * len(measurements) + 50
    parts = [f'<text x="{_LEFT}" y="{height - 8}" fill="#57606a">{_NOTE}</text>']
    for row, entry in enumerate(measurements):
        y = _TOP + _ROW * row + _ROW / 2
        name = entry.view if len({other.prompts for other in measurements}) == 1 else f"{entry.view}, {entry.prompts}"
        shown = name if len(name) <= 38 else name[:37] + "…"
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 4:.0f}" text-anchor="end">{escape(shown)}</text>')
    width = (_WIDTH - _LEFT - _RIGHT - 2 * _GAP) / 3
    for number, (title, colour) in enumerate(zip(_PANELS, _COLOURS, strict=True)):
        values = [_value(entry, number) for entry in measurements]
        parts.append(_panel(_LEFT + number * (width + _GAP), width, title, values, colour))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'style="{_STYLE}"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _value(entry: Measurement, panel: int) -> Estimate | None:
    if panel == 0:
        return entry.top_1
    against = "background" if panel == 1 else "fragment"
    return next((areas[against] for areas in entry.auroc.values() if areas[against] is not None), None)


def _panel(left: float, width: float, title: str, values: Sequence[Estimate | None], colour: str) -> str:
    bottom = _TOP + _ROW * len(values)
    parts = [f'<text x="{left:.1f}" y="{_TOP - 18}" font-weight="600">{escape(title)}</text>']
    for share in (0.0, 0.5, 1.0):
        x = left + share * width
        parts.append(f'<path d="M{x:.1f} {_TOP - 6}V{bottom + 4}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{share:g}</text>')
    for row, value in enumerate(values):
        if value is None:
            continue
        y = _TOP + _ROW * row + _ROW / 2
        low, middle, high = (left + width * at for at in (value.low, value.value, value.high))
        parts.append(f'<path d="M{low:.1f} {y:.0f}H{high:.1f}" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<circle cx="{middle:.1f}" cy="{y:.0f}" r="4" fill="{colour}"><title>{value.value:.3f} '
            f"({value.low:.3f} … {value.high:.3f})</title></circle>"
        )
    return "".join(parts)
