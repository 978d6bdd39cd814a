"""One job's section of a page: the photo, a layer per mask, and a row per component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from PIL import Image

from maskscore.imaging import component_bits, transform_of
from maskscore.report.page_pictures import PhotoError, crop_picture, crop_uri, data_uri, layer, open_photo
from maskscore.report.report_entry import ReportEntry
from maskscore.report.score_colours import Grade, grade_of
from maskscore.schema import Component, Mask

__all__ = ["FULL", "LIGHT", "Detail", "Pictures", "Row", "Section", "make_section", "mask_in_box"]

# Fields of segmenters that are worth a column where a mask brings them.
_UPSTREAM: Final = ("predicted_iou", "stability_score")


@dataclass(frozen=True, slots=True)
class Detail:
    """How large a page's pictures are at most: sides in pixels, and a crop as PNG in bytes, above which it is a JPEG.

    ``crop_side=None`` shows crops as the model saw them.
    """

    photo_side: int
    photo_quality: int
    crop_side: int | None
    crop_bytes: int
    crop_quality: int


FULL: Final = Detail(1200, 85, None, 16_000, 88)
LIGHT: Final = Detail(800, 75, 112, 3_000, 78)
"""For pages of a report with many images."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """``layer`` and ``crop`` are data URIs; ``place`` is the layer's left, top, width and height, in percent."""

    layer: str
    crop: str
    place: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One component. ``anchor`` is its id within the whole report."""

    number: int
    anchor: str
    component: Component
    grade: Grade
    pictures: Pictures | None


@dataclass(frozen=True, slots=True)
class Section:
    """One job, the ``number``-th of the report, from 1.

    ``photo`` is the picture as it was scored, ``shown`` its data URI at the page's size, and ``layers`` are the rows
    with pictures, the largest first.
    """

    number: int
    entry: ReportEntry
    name: str
    rows: list[Row]
    photo: Image.Image | None
    shown: str | None
    problem: str | None
    layers: list[Row]
    upstream: list[str]

    @property
    def anchor(self) -> str:
        """The section's id within the whole report."""
        return f"j{self.number}"


def make_section(entry: ReportEntry, number: int, detail: Detail = FULL) -> Section:
    """Draw the pictures of one job; what cannot be drawn is left out, and ``problem`` says why."""
    components = entry.result.components
    photo, problem = None, entry.missing
    if entry.image is not None and entry.result.image is not None:
        try:
            photo = open_photo(entry.image, entry.result.image)
        except PhotoError as error:
            problem = str(error)
    scale = min(1.0, detail.photo_side / max(photo.size)) if photo else 1.0
    rows = [
        Row(
            row,
            f"j{number}m{row}",
            component,
            grade_of(component),
            _pictures(entry, component, photo, scale, detail) if photo else None,
        )
        for row, component in enumerate(components)
    ]
    return Section(
        number,
        entry,
        entry.job.image.uri if entry.job else entry.result.image.uri if entry.result.image else entry.result.job_id,
        rows,
        photo,
        _shown(photo, scale, detail.photo_quality) if photo else None,
        problem,
        sorted((row for row in rows if row.pictures), key=lambda row: -(row.component.area or 0)),
        [name for name in _UPSTREAM if any(name in component.upstream for component in components)],
    )


def mask_in_box(entry: ReportEntry, component: Component, photo: Image.Image) -> Image.Image | None:
    """Return the component's mask inside its box, as :func:`component_bits` does, or ``None`` where there is none."""
    box = component.box
    mask = entry.masks[component.index] if component.index < len(entry.masks) else None
    if component.skipped or box is None or not isinstance(mask, Mask):
        return None
    if entry.masks_of_components:
        component = component.model_copy(update={"part": None})
    try:
        return component_bits(mask, component, box, photo.size)
    except ValueError:
        # The masks' object was replaced since: the scores are still right, a picture would not be.
        return None


def _shown(photo: Image.Image, scale: float, quality: int) -> str:
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return data_uri(photo.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0), "JPEG", quality=quality)


def _pictures(
    entry: ReportEntry, component: Component, photo: Image.Image, scale: float, detail: Detail
) -> Pictures | None:
    box, job, model = component.box, entry.job, entry.result.model
    if box is None or job is None or model is None:
        return None
    mask_picture = mask_in_box(entry, component, photo)
    if mask_picture is None:
        return None
    crop = crop_picture(photo, mask_picture, box, view=job.options.views[0], transform=transform_of(model))
    if detail.crop_side is not None and crop.width > detail.crop_side:
        crop = crop.resize((detail.crop_side, detail.crop_side), Image.Resampling.LANCZOS)
    return Pictures(
        data_uri(layer(mask_picture, grade_of(component).colour, scale), "PNG", optimize=True),
        crop_uri(crop, most_bytes=detail.crop_bytes, quality=detail.crop_quality),
        _percent_place(box, photo.size),
    )


def _percent_place(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return a box's left, top, width and height in percent of the photo's ``(width, height)``."""
    x, y, width, height = box
    return 100 * x / size[0], 100 * y / size[1], 100 * width / size[0], 100 * height / size[1]
