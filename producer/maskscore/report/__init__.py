"""The HTML report: masks over their images, coloured by multiplier, the scores, and the crops as the model saw them."""

from __future__ import annotations

from maskscore.report.compare_page import write_comparison
from maskscore.report.comparison import TREATMENTS, Cell, ComparedMask, Comparison, comparison_jobs
from maskscore.report.entries_of_parts import parts_entries
from maskscore.report.report_entry import ReportEntry, batch_entries, collect_entries, job_entries
from maskscore.report.report_folder import write_folder
from maskscore.report.report_page import render, write_report

__all__ = [
    "TREATMENTS",
    "Cell",
    "ComparedMask",
    "Comparison",
    "ReportEntry",
    "batch_entries",
    "collect_entries",
    "comparison_jobs",
    "job_entries",
    "parts_entries",
    "render",
    "write_comparison",
    "write_folder",
    "write_report",
]
