"""The diagrams of reliability and of precision by recall, as parts of an SVG document, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from maskscore.statistics.intervals import Estimate
from maskscore.statistics.operating_points import OperatingPoint
from maskscore.statistics.reliability import ReliabilityBin

__all__ = ["SVG_STYLE", "precision_recall_diagram", "reliability_diagram"]

SVG_STYLE: Final = "font:12px system-ui,sans-serif;fill:#24292f"


def reliability_diagram(
    left: float, top: float, side: float, bins: Sequence[ReliabilityBin], axis: str, upwards: str
) -> str:
    """Return the diagram with a dot per bin; its plot is a square of ``side`` pixels from ``(left, top)`` on.

    ``axis`` names the probability, and ``upwards`` the share of hits. Labels take 40 pixels at the left and below, and
    20 above.
    """
    diagonal = f'<path d="M{left} {top + side}L{left + side} {top}" stroke="#d0d7de" stroke-dasharray="4"/>'
    dots = [
        _dot(left, top, side, one.p_keep, one.share, "#0969da", f"{one.masks:,} masks, {axis} {one.p_keep:.3f}: ")
        for one in bins
    ]
    return _axes(left, top, side, axis, upwards) + diagonal + "".join(dots)


def precision_recall_diagram(
    left: float, top: float, side: float, curve: Sequence[OperatingPoint], chosen: OperatingPoint | None
) -> str:
    """Return the diagram with a dot per threshold, and a larger one for the ``chosen``; placed as the other."""
    parts = [_axes(left, top, side, "recall", "precision")]
    if curve:
        line = "L".join(
            f"{left + side * one.recall.value:.1f} {top + side * (1 - one.precision.value):.1f}" for one in curve
        )
        parts.append(f'<path d="M{line}" fill="none" stroke="#1a7f37" stroke-opacity="0.5"/>')
    parts += [
        _dot(left, top, side, one.recall.value, one.precision, "#1a7f37", f"threshold {one.threshold:.4g}: ")
        for one in curve
    ]
    if chosen is not None:
        text = f"chosen threshold {chosen.threshold:.4g}: "
        parts.append(_dot(left, top, side, chosen.recall.value, chosen.precision, "#bc4c00", text, radius=6))
    return "".join(parts)


def _axes(left: float, top: float, side: float, across: str, upwards: str) -> str:
    bottom = top + side
    parts = [f'<path d="M{left} {top}V{bottom}H{left + side}" fill="none" stroke="#57606a"/>']
    for share in (0.0, 0.5, 1.0):
        x, y = left + share * side, bottom - share * side
        parts.append(f'<text x="{x:.0f}" y="{bottom + 16}" text-anchor="middle">{share:g}</text>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{share:g}</text>')
    parts.append(f'<text x="{left + side / 2:.0f}" y="{bottom + 34}" text-anchor="middle">{escape(across)}</text>')
    parts.append(f'<text x="{left}" y="{top - 10}">{escape(upwards)}</text>')
    return "".join(parts)


def _dot(
    left: float, top: float, side: float, across: float, share: Estimate, colour: str, text: str, *, radius: int = 3
) -> str:
    x = left + side * across
    low, middle, high = (top + side * (1 - value) for value in (share.low, share.value, share.high))
    return (
        f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}"/>'
        f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="{radius}" fill="{colour}"><title>{escape(text)}{share.value:.3f} '
        f"({share.low:.3f} … {share.high:.3f})</title></circle>"
    )
