"""Entries → a folder of pages, for reports of many images: each page is self-contained and light."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markupsafe import Markup

from maskscore.report.job_sections import LIGHT, Section, make_section
from maskscore.report.page_pictures import photo_thumbnail
from maskscore.report.report_entry import ReportEntry
from maskscore.report.report_page import section_markup
from maskscore.report.report_summary import ReportSummary
from maskscore.report.score_colours import Grade, in_order
from maskscore.report.template_loader import template
from maskscore.storage import output_errors, output_file, write_text

__all__ = ["write_folder"]

_PER_PAGE: Final = 20
_PER_LIST: Final = 1000
_INDEX: Final = "index.html"
_OURS: Final = re.compile(r"(page|list)-\d{4,}\.html")


def write_folder(
    folder: Path,
    entries: Iterable[ReportEntry],
    *,
    title: str,
    note: str | None = None,
    judge: bool = False,
    classes: Sequence[str] = (),
) -> Path:
    """Write ``index.html``, ``page-0001.html`` and so on, and return the index.

    The index has the contact sheet, the histograms, what failed, and the images as thumbnails, 1,000 of them; further
    ones are in ``list-0002.html`` and so on. Each page shows 20 images with all of their masks. No page needs another
    file, and at most a page's worth of entries is in memory. The folder is made where it is not there; pages of an
    earlier report that would not belong to this one are removed, other files are left alone. ``judge`` gives the pages
    of images what masks are judged with, also by ``classes``, as in :func:`~maskscore.report.render`. Raises
    :class:`~maskscore.errors.OutputError` when something cannot be written.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        writer = _Writer(folder, title, judge, classes)
        for number, entry in enumerate(entries, 1):
            writer.add(make_section(entry, number, LIGHT))
        return writer.finish(note)


@dataclass(frozen=True, slots=True)
class _Item:
    """One image in the list."""

    href: str
    name: str
    state: str
    thumbnail: str | None
    masks: int
    grades: list[tuple[Grade, int]]
    code: str | None

    @property
    def strip(self) -> str:
        """The grades' shares as a CSS gradient."""
        stops, done = [], 0
        for grade, count in self.grades:
            start, done = done, done + count
            stops.append(f"{grade.colour} {100 * start / self.masks:.0f}% {100 * done / self.masks:.0f}%")
        return f"linear-gradient(90deg,{','.join(stops)})"


class _Writer:
    """Writes a page as soon as it is known whether another one follows."""

    def __init__(self, folder: Path, title: str, judge: bool, classes: Sequence[str]) -> None:
        self._folder, self._title, self._judge, self._classes = folder, title, judge, classes
        self._summary = ReportSummary()
        self._page: list[Markup] = []
        self._page_grades: set[Grade] = set()
        self._items: list[_Item] = []
        self._first_list: list[_Item] = []
        self._pages, self._lists = 1, 1
        self._written: set[str] = set()

    def add(self, section: Section) -> None:
        if len(self._page) == _PER_PAGE:
            self._write_page(last=False)
        if len(self._items) == _PER_LIST:
            self._write_list(last=False)
        page = _page_name(self._pages)
        self._summary.add(section, page)
        self._page.append(section_markup(section, judge=self._judge))
        grades = Counter(row.grade for row in section.rows)
        self._page_grades |= set(grades)
        self._items.append(_item(section, page, grades))

    def finish(self, note: str | None) -> Path:
        if self._page:
            self._write_page(last=True)
        self._write_list(last=True)
        index = self._folder / _INDEX
        names = [_list_name(number) for number in range(1, self._lists + 1)]
        page = template("folder_index").stream(
            title=self._title, note=note, summary=self._summary, items=self._first_list, lists=names, here=_INDEX
        )
        with output_file(index) as part:
            page.dump(str(part), encoding="utf-8")
        for path in self._folder.iterdir():
            if _OURS.fullmatch(path.name) and path.name not in self._written:
                path.unlink()
        return index

    def _write_page(self, *, last: bool) -> None:
        text = template("folder_page").render(
            title=self._title,
            number=self._pages,
            first=(self._pages - 1) * _PER_PAGE + 1,
            sections=self._page,
            grades=in_order(self._page_grades),
            previous=_page_name(self._pages - 1) if self._pages > 1 else None,
            following=None if last else _page_name(self._pages + 1),
            judge=self._judge,
            classes=self._classes,
        )
        self._write(_page_name(self._pages), text)
        self._page, self._page_grades = [], set()
        self._pages += 1

    def _write_list(self, *, last: bool) -> None:
        if self._lists == 1:
            self._first_list = self._items
        else:
            text = template("folder_list").render(
                title=self._title,
                first=(self._lists - 1) * _PER_LIST + 1,
                items=self._items,
                previous=_list_name(self._lists - 1),
                following=None if last else _list_name(self._lists + 1),
            )
            self._write(_list_name(self._lists), text)
        self._items = []
        if not last:
            self._lists += 1

    def _write(self, name: str, text: str) -> None:
        write_text(self._folder / name, text)
        self._written.add(name)


def _page_name(number: int) -> str:
    return f"page-{number:04}.html"


def _list_name(number: int) -> str:
    return _INDEX if number == 1 else f"list-{number:04}.html"


def _item(section: Section, page: str, grades: Counter[Grade]) -> _Item:
    result = section.entry.result
    return _Item(
        f"{page}#{section.anchor}",
        section.name.rpartition("/")[2] or section.name,
        result.state.value,
        photo_thumbnail(section.photo) if section.photo else None,
        len(section.rows),
        [(grade, grades[grade]) for grade in in_order(grades)],
        result.error.code if result.error else None,
    )
