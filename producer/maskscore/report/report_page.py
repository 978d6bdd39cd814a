"""Writes one self-contained HTML page of all entries."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from markupsafe import Markup

from maskscore.report.job_sections import Section, make_section
from maskscore.report.report_entry import ReportEntry
from maskscore.report.report_summary import ReportSummary
from maskscore.report.template_loader import template
from maskscore.storage import output_file

__all__ = ["render", "section_markup", "write_report"]

_PIECE = 1 << 20


def write_report(path: Path, entries: Iterable[ReportEntry], *, title: str, note: str | None = None) -> None:
    """Write :func:`render`'s page to a file, as UTF-8; of many entries only one is held in memory at a time.

    Raises :class:`~maskscore.errors.OutputError` when it cannot be written.
    """
    summary = ReportSummary()
    # The summary stands on top and is known last, so what stands below it waits in a file.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as waiting:
        for text in _sections(entries, summary):
            waiting.write(text)
        waiting.seek(0)
        pieces = map(Markup, iter(lambda: waiting.read(_PIECE), ""))
        page = template("report").stream(title=title, note=note, summary=summary, sections=pieces)
        with output_file(path) as part:
            page.dump(str(part), encoding="utf-8")


def render(entries: Iterable[ReportEntry], *, title: str, note: str | None = None) -> str:
    """Return the page: no script, style or picture comes from anywhere else. ``note`` stands on top."""
    summary = ReportSummary()
    sections = list(_sections(entries, summary))
    return template("report").render(title=title, note=note, summary=summary, sections=sections)


def section_markup(section: Section) -> Markup:
    """Return the HTML of one job, a line's end included."""
    return Markup(template("section").render(section=section) + "\n")


def _sections(entries: Iterable[ReportEntry], summary: ReportSummary) -> Iterator[Markup]:
    for number, entry in enumerate(entries, 1):
        section = make_section(entry, number)
        summary.add(section)
        yield section_markup(section)
