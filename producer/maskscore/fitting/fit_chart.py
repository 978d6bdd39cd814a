"""The SVG charts of a fit: reliability, and precision against recall, with 95 % intervals by image."""

from __future__ import annotations

from html import escape
from typing import Final

from maskscore.fitting.fit_run import Fit
from maskscore.statistics import SVG_STYLE, precision_recall_diagram, reliability_diagram

__all__ = ["draw_fit"]

_SIDE, _LEFT, _TOP, _GAP = 300, 60, 50, 80
_NOTE: Final = "lines: 95 % intervals by image; predictions out of fold, folds by image"


def draw_fit(fit: Fit) -> str:
    """Return the SVG document: the reliability diagram on the left, precision by recall on the right."""
    width, height = _LEFT + 2 * _SIDE + _GAP + 20, _TOP + _SIDE + 70
    parts = [
        f'<text x="{_LEFT}" y="20" font-weight="600">{escape(fit.head.name)}, {fit.head.kind}, of '
        f"{fit.measured:,} judged masks</text>",
        f'<text x="{_LEFT}" y="{height - 8}" fill="#57606a">{_NOTE}</text>',
        reliability_diagram(
            _LEFT,
            _TOP,
            _SIDE,
            fit.reliability,
            "p_keep",
            "share named rightly" if fit.head.classes else "share to be kept",
        ),
        precision_recall_diagram(_LEFT + _SIDE + _GAP, _TOP, _SIDE, fit.curve, fit.point),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'style="{SVG_STYLE}"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
