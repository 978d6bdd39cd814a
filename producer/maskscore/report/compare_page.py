"""A comparison → one self-contained page: each mask under each treatment, as the model saw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskscore.imaging import transform_of
from maskscore.report.comparison import Cell, ComparedMask, Comparison
from maskscore.report.job_sections import Section, make_section, mask_in_box
from maskscore.report.page_pictures import crop_picture, crop_uri, mask_thumbnail
from maskscore.report.report_entry import ReportEntry
from maskscore.report.template_loader import template
from maskscore.schema import Job
from maskscore.storage import output_file

__all__ = ["write_comparison"]


@dataclass(frozen=True, slots=True)
class _Shown:
    """One mask; ``cells`` has each treatment's text, its scores, and the crop as a data URI where there is one."""

    number: int
    mask: ComparedMask
    thumbnail: str | None
    cells: list[tuple[str, Cell, str | None]]


def write_comparison(
    path: Path, comparison: Comparison, jobs: Sequence[Job], entry: ReportEntry, *, title: str
) -> None:
    """Write the page, as UTF-8.

    ``jobs`` are those of :func:`~maskscore.report.comparison.comparison_jobs`; ``entry`` is of the first one, with the
    image and the masks. What of those cannot be read leaves the scores to show.
    """
    section = make_section(entry, 1)
    masks = [_shown(number, mask, comparison, jobs, section) for number, mask in enumerate(comparison.masks)]
    page = template("compare").stream(title=title, comparison=comparison, section=section, masks=masks)
    with output_file(path) as part:
        page.dump(str(part), encoding="utf-8")


def _shown(number: int, mask: ComparedMask, comparison: Comparison, jobs: Sequence[Job], section: Section) -> _Shown:
    photo, box, model = section.photo, mask.component.box, section.entry.result.model
    thumbnail: str | None = None
    crops: list[str | None] = [None] * len(mask.cells)
    mask_picture = mask_in_box(section.entry, mask.component, photo) if photo is not None else None
    if photo is not None and mask_picture is not None and box is not None and model is not None:
        thumbnail = mask_thumbnail(photo, mask_picture, box, mask.cells[0].grade.colour)
        transform = transform_of(model)
        views = [job.options.views[0] for job in jobs[0::2]]
        crops = [crop_uri(crop_picture(photo, mask_picture, box, view=view, transform=transform)) for view in views]
    return _Shown(number, mask, thumbnail, list(zip(comparison.treatments, mask.cells, crops, strict=True)))
