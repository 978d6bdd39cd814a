"""Writes one self-contained HTML page of all entries."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from maskscore.report.job_sections import Section, make_section
from maskscore.report.report_entry import ReportEntry
from maskscore.report.report_summary import ReportSummary
from maskscore.report.template_loader import template
from maskscore.storage import output_file

__all__ = ["render", "section_markup", "write_report"]

_PIECE = 1 << 20


def write_report(
    path: Path,
    entries: Iterable[ReportEntry],
    *,
    title: str,
    note: str | None = None,
    judge: bool = False,
    classes: Sequence[str] = (),
) -> None:
    """Write :func:`render`'s page to a file, as UTF-8; of many entries only one is held in memory at a time.

    Raises :class:`~maskscore.errors.OutputError` when it cannot be written.
    """
    summary = ReportSummary()
    # The summary stands on top and is known last, so what stands below it waits in a file.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as waiting:
        for text in _sections(entries, summary, judge):
            waiting.write(text)
        waiting.seek(0)
        pieces = map(Markup, iter(lambda: waiting.read(_PIECE), ""))
        page = template("report").stream(
            title=title, note=note, summary=summary, sections=pieces, judge=judge, classes=classes
        )
        with output_file(path) as part:
            page.dump(str(part), encoding="utf-8")


def render(
    entries: Iterable[ReportEntry],
    *,
    title: str,
    note: str | None = None,
    judge: bool = False,
    classes: Sequence[str] = (),
) -> str:
    """Return the page: no script, style or picture comes from anywhere else.

    ``note`` stands on top. ``judge`` adds what a person judges the masks with, and saves the judgements as a file that
    :func:`maskscore.review.read_judgements` reads: masks are kept or dropped, or get one of ``classes`` (with the
    keys 1 to 9, so 9 at most).
    """
    summary = ReportSummary()
    sections = list(_sections(entries, summary, judge))
    return template("report").render(
        title=title, note=note, summary=summary, sections=sections, judge=judge, classes=classes
    )


def section_markup(section: Section, *, judge: bool = False) -> Markup:
    """Return the HTML of one job, a line's end included."""
    return Markup(template("section").render(section=section, judge=judge) + "\n")


def _sections(entries: Iterable[ReportEntry], summary: ReportSummary, judge: bool) -> Iterator[Markup]:
    for number, entry in enumerate(entries, 1):
        section = make_section(entry, number)
        summary.add(section)
        yield section_markup(section, judge=judge)
