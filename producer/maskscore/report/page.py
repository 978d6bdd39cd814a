"""Entries → one self-contained HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from jinja2 import Environment
from markupsafe import Markup
from PIL import Image

from maskscore.job import Mask
from maskscore.report.entries import ReportEntry
from maskscore.report.pictures import crop_picture, data_uri, layer, mask_picture, open_photo
from maskscore.result import Component

__all__ = ["render", "write_report"]

_LONGEST_SIDE = 1000
_CROP_SIDE = 224

# Okabe and Ito's palette: told apart with any colour vision.
_COLOURS: Final = {2.0: "#0072b2", 1.0: "#56b4e9", 0.5: "#f0e442", 0.1: "#d55e00"}
_MEANINGS: Final = {2.0: "surely an object", 1.0: "probably an object", 0.5: "unclear", 0.1: "background or fragment"}
_NO_SCORE: Final = "#8a8a8a"


@dataclass(frozen=True, slots=True)
class _Row:
    """One component on the page; the picture's place is in percent of the photo."""

    component: Component
    colour: str
    layer: str | None = None
    crop: str | None = None
    left: float = 0
    top: float = 0
    width: float = 0
    height: float = 0


@dataclass(frozen=True, slots=True)
class _Section:
    entry: ReportEntry
    rows: list[_Row]
    photo: str | None
    problem: str | None
    layers: list[_Row]


def write_report(path: Path, entries: Sequence[ReportEntry], *, title: str, note: str | None = None) -> None:
    """Write :func:`render`'s page to a file."""
    path.write_text(render(entries, title=title, note=note), "utf-8")


def render(entries: Sequence[ReportEntry], *, title: str, note: str | None = None) -> str:
    """Return the page: no script, style or picture comes from anywhere else. ``note`` stands on top."""
    sections = [_section(entry) for entry in entries]
    scored = [row.component for section in sections for row in section.rows if row.component.skipped is None]
    counts = Counter(component.semantic_multiplier for component in scored)
    files = resources.files(__name__.rpartition(".")[0])
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files.joinpath("page.html.j2").read_text("utf-8")
    )
    return template.render(
        title=title,
        note=note,
        sections=sections,
        masks=sum(len(section.rows) for section in sections),
        scored=len(scored),
        bars=[
            {
                "multiplier": multiplier,
                "meaning": _MEANINGS[multiplier],
                "colour": colour,
                "count": counts[multiplier],
                "share": 100 * counts[multiplier] / max(1, len(scored)),
            }
            for multiplier, colour in _COLOURS.items()
        ],
        style=Markup(files.joinpath("page.css").read_text("utf-8")),
        script=Markup(files.joinpath("page.js").read_text("utf-8")),
    )


def _section(entry: ReportEntry) -> _Section:
    plain = [_Row(component, _colour(component)) for component in entry.result.components]
    if entry.image is None or entry.result.image is None:
        return _Section(entry, plain, None, entry.missing, [])
    try:
        photo = open_photo(entry.image, turned=entry.result.image.orientation_applied)
    except (OSError, ValueError, SyntaxError) as error:
        return _Section(entry, plain, None, f"The image cannot be shown: {error}", [])
    scale = min(1.0, _LONGEST_SIDE / max(photo.size))
    rows = [_pictured(entry, row, photo, scale) for row in plain]
    shown = photo.resize((max(1, round(photo.width * scale)), max(1, round(photo.height * scale))))
    # Small masks lie on top of large ones.
    layers = sorted((row for row in rows if row.layer), key=lambda row: -(row.component.area or 0))
    return _Section(entry, rows, data_uri(shown, "JPEG", quality=85), None, layers)


def _pictured(entry: ReportEntry, row: _Row, photo: Image.Image, scale: float) -> _Row:
    component = row.component
    mask = entry.masks[component.index] if component.index < len(entry.masks) else None
    if component.skipped is not None or component.box is None or not isinstance(mask, Mask):
        return row
    try:
        picture = mask_picture(mask, photo.size)
    except ValueError:
        return row
    size = entry.result.model.image_size if entry.result.model else _CROP_SIDE
    x, y, width, height = component.box
    return _Row(
        component,
        row.colour,
        data_uri(layer(picture, component.box, row.colour, scale), "PNG", optimize=True),
        data_uri(crop_picture(photo, picture, component.box, entry.job.options, size), "PNG"),
        100 * x / photo.width,
        100 * y / photo.height,
        100 * width / photo.width,
        100 * height / photo.height,
    )


def _colour(component: Component) -> str:
    if component.semantic_multiplier is not None:
        return _COLOURS.get(component.semantic_multiplier, _NO_SCORE)
    if component.s_pos is None or component.s_neg is None:
        return _NO_SCORE
    # Cosines have no multiplier: which group is nearer has to do.
    return _COLOURS[2.0] if component.s_pos > component.s_neg else _COLOURS[0.1]
