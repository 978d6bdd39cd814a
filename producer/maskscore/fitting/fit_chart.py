"""The SVG charts of a fit: reliability, and precision against recall, with 95 % intervals by image."""

from __future__ import annotations

from html import escape
from typing import Final

from maskscore.evaluation import Estimate
from maskscore.fitting.fit_run import Fit

__all__ = ["draw_fit"]

_SIDE, _LEFT, _TOP, _GAP = 300, 60, 50, 80
_STYLE: Final = "font:12px system-ui,sans-serif;fill:#24292f"
_NOTE: Final = "lines: 95 % intervals by image; predictions out of fold, folds by image"


def draw_fit(fit: Fit) -> str:
    """Return the SVG document: the reliability diagram on the left, precision by recall on the right."""
    width, height = _LEFT + 2 * _SIDE + _GAP + 20, _TOP + _SIDE + 70
    second = _LEFT + _SIDE + _GAP
    parts = [
        f'<text x="{_LEFT}" y="20" font-weight="600">{escape(fit.head.name)}, {fit.head.kind}, of '
        f"{fit.measured:,} judged masks</text>",
        f'<text x="{_LEFT}" y="{height - 8}" fill="#57606a">{_NOTE}</text>',
        _axes(_LEFT, "p_keep", "share to be kept"),
        _axes(second, "recall", "precision"),
        f'<path d="M{_LEFT} {_TOP + _SIDE}L{_LEFT + _SIDE} {_TOP}" stroke="#d0d7de" stroke-dasharray="4"/>',
    ]
    parts += [
        _dot(_LEFT, one.p_keep, one.share, "#0969da", f"{one.masks:,} masks, p_keep {one.p_keep:.3f}: ")
        for one in fit.reliability
    ]
    line = "L".join(
        f"{second + _SIDE * one.recall.value:.1f} {_TOP + _SIDE * (1 - one.precision.value):.1f}" for one in fit.curve
    )
    parts.append(f'<path d="M{line}" fill="none" stroke="#1a7f37" stroke-opacity="0.5"/>')
    parts += [
        _dot(second, one.recall.value, one.precision, "#1a7f37", f"threshold {one.threshold:.4g}: ")
        for one in fit.curve
    ]
    if fit.point is not None:
        text = f"chosen threshold {fit.point.threshold:.4g}: "
        parts.append(_dot(second, fit.point.recall.value, fit.point.precision, "#bc4c00", text, radius=6))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'style="{_STYLE}"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _axes(left: float, across: str, upwards: str) -> str:
    bottom = _TOP + _SIDE
    parts = [f'<path d="M{left} {_TOP}V{bottom}H{left + _SIDE}" fill="none" stroke="#57606a"/>']
    for share in (0.0, 0.5, 1.0):
        x, y = left + share * _SIDE, bottom - share * _SIDE
        parts.append(f'<text x="{x:.0f}" y="{bottom + 16}" text-anchor="middle">{share:g}</text>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{share:g}</text>')
    parts.append(f'<text x="{left + _SIDE / 2:.0f}" y="{bottom + 34}" text-anchor="middle">{across}</text>')
    parts.append(f'<text x="{left}" y="{_TOP - 10}">{upwards}</text>')
    return "".join(parts)


def _dot(left: float, across: float, share: Estimate, colour: str, text: str, *, radius: int = 3) -> str:
    x = left + _SIDE * across
    low, middle, high = (_TOP + _SIDE * (1 - value) for value in (share.low, share.value, share.high))
    return (
        f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}"/>'
        f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="{radius}" fill="{colour}"><title>{escape(text)}{share.value:.3f} '
        f"({share.low:.3f} … {share.high:.3f})</title></circle>"
    )
