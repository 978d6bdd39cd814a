"""The SVG chart of an evaluation: dots with 95 % intervals by image, and the diagrams of each score."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from maskscore.evaluation.measurements import Measurement
from maskscore.statistics import SVG_STYLE, Estimate, precision_recall_diagram, reliability_diagram

__all__ = ["draw"]

_WIDTH, _LEFT, _RIGHT, _GAP, _ROW, _TOP = 860, 250, 20, 26, 24, 44
_SIDE, _CELL_HEIGHT, _CELL_TOP = 140, 250, 56
_COLOURS: Final = ("#1a7f37", "#0969da", "#bc4c00")
_NOTE: Final = "lines: 95 % intervals by image; masks of one image are not independent"
_PANELS: Final = ("true class first", "AUROC: backgrounds", "AUROC: fragments")


def draw(measurements: Sequence[Measurement]) -> str:
    """Return the SVG document.

    Above: a row per candidate and head, a panel per measure, all from 0 to 1; the AUROC is that of the method's own
    score (``p_pos_sum``; method sigmoid: ``s_pos``; cosine: ``s_pos - s_neg``), or of the head's ``p_keep``. Below, for
    each of them, precision by recall and, where the score is a probability, reliability.
    """
    rows = [(entry, score) for entry in measurements for score in entry.main_scores]
    names = [row_name(measurements, entry, score) for entry, score in rows]
    bottom = _TOP + _ROW * len(rows) + 40
    height = bottom + _CELL_HEIGHT * ((len(rows) + 1) // 2) + 30
    parts = [f'<text x="20" y="{height - 8}" fill="#57606a">{_NOTE}</text>']
    for row, name in enumerate(names):
        y = _TOP + _ROW * row + _ROW / 2
        parts.append(f'<text x="{_LEFT - 10}" y="{y + 4:.0f}" text-anchor="end">{escape(_short(name, 38))}</text>')
    width = (_WIDTH - _LEFT - _RIGHT - 2 * _GAP) / 3
    for number, (title, colour) in enumerate(zip(_PANELS, _COLOURS, strict=True)):
        values = [_value(entry, score, number) for entry, score in rows]
        parts.append(_panel(_LEFT + number * (width + _GAP), width, title, values, colour))
    for number, ((entry, score), name) in enumerate(zip(rows, names, strict=True)):
        left = 20 + number % 2 * (_WIDTH - 20) / 2
        parts.append(_diagrams(left, bottom + _CELL_HEIGHT * (number // 2), entry, score, name))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'style="{SVG_STYLE}"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def row_name(measurements: Sequence[Measurement], entry: Measurement, score: str) -> str:
    """Return what tells a score of a candidate from the others."""
    parts = [entry.view]
    if len({other.prompts for other in measurements}) > 1:
        parts.append(entry.prompts)
    if len({other.model for other in measurements}) > 1:
        parts.insert(0, entry.model)
    alike = [other for other in measurements if _way(other) == _way(entry)]
    if len(alike) > 1 and entry.source is not None:
        parts.insert(0, entry.source)
    return ", ".join(parts if len(entry.main_scores) == 1 else [*parts, score])


def _way(entry: Measurement) -> tuple[str, str, str]:
    return entry.model, entry.view, entry.prompts


def _short(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _value(entry: Measurement, score: str, panel: int) -> Estimate | None:
    if panel == 0:
        return entry.top_1 if score == entry.main_scores[0] else None
    return entry.scores[score].auroc["background" if panel == 1 else "fragment"]


def _diagrams(left: float, top: float, entry: Measurement, score: str, name: str) -> str:
    figures = entry.scores[score]
    if not figures.curve:
        return ""
    title = f'<text x="{left:.0f}" y="{top + 14:.0f}" font-weight="600">{escape(_short(name, 60))}</text>'
    second = left + 40 + _SIDE + 60
    precision = precision_recall_diagram(left + 30, top + _CELL_TOP, _SIDE, figures.curve, figures.decision)
    if not figures.reliability:
        return title + precision
    axis = "p_keep" if score.startswith("p_keep") else score
    reliability = reliability_diagram(second, top + _CELL_TOP, _SIDE, figures.reliability, axis, "share of objects")
    return title + precision + reliability


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
