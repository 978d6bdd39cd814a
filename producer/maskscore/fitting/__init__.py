"""Heads are fitted to masks that people have judged: the judgements, the fit, and its charts.

Needs scikit-learn, NumPy and Pillow (``maskscore[fit]``), no model: scores and features come from results and parts.
"""

from __future__ import annotations

from maskscore.fitting.fit_chart import draw_fit
from maskscore.fitting.fit_run import FEWEST, Fit, FitOptions, fit_head
from maskscore.fitting.judged_files import read_judged
from maskscore.fitting.judged_masks import JudgedMasks, Origin, Problem, join, judged_image_test

__all__ = [
    "FEWEST",
    "Fit",
    "FitOptions",
    "JudgedMasks",
    "Origin",
    "Problem",
    "draw_fit",
    "fit_head",
    "join",
    "judged_image_test",
    "read_judged",
]
