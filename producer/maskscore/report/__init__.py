"""The HTML report: masks over their images, coloured by multiplier, the scores, and the crops as the model saw them."""

from __future__ import annotations

from maskscore.report.entries import ReportEntry, collect
from maskscore.report.page import render, write_report

__all__ = ["ReportEntry", "collect", "render", "write_report"]
