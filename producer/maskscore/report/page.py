"""Entries → one self-contained HTML page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from maskscore.job import Mask
from maskscore.report.bits import component_bits
from maskscore.report.entries import ReportEntry
from maskscore.report.grades import COSINE_GRADES, MULTIPLIER_GRADES, NO_GRADE, Grade, grade_of
from maskscore.report.photo import PhotoError, open_photo
from maskscore.report.pictures import crop_picture, crop_uri, data_uri, layer
from maskscore.result import Component, JobResult

__all__ = ["render", "write_report"]

_LONGEST_SIDE = 1200

# Fields of segmenters that are worth a column where a mask brings them.
_UPSTREAM: Final = ("predicted_iou", "stability_score")


@dataclass(frozen=True, slots=True)
class _Pictures:
    """``layer`` and ``crop`` are data URIs; ``place`` is the layer's left, top, width and height, in percent."""

    layer: str
    crop: str
    place: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    component: Component
    grade: Grade
    pictures: _Pictures | None


@dataclass(frozen=True, slots=True)
class _Section:
    """One job. ``photo`` is a data URI and ``layers`` are the rows with pictures, the largest first."""

    entry: ReportEntry
    name: str
    rows: list[_Row]
    photo: str | None
    problem: str | None
    layers: list[_Row]
    upstream: list[str]


@dataclass(frozen=True, slots=True)
class _Bar:
    grade: Grade
    count: int
    percent: float


def write_report(path: Path, entries: Sequence[ReportEntry], *, title: str, note: str | None = None) -> None:
    """Write :func:`render`'s page to a file, as UTF-8."""
    path.write_text(render(entries, title=title, note=note), "utf-8")


def render(entries: Sequence[ReportEntry], *, title: str, note: str | None = None) -> str:
    """Return the page: no script, style or picture comes from anywhere else. ``note`` stands on top."""
    sections = [_section(entry) for entry in entries]
    files = resources.files(__name__.rpartition(".")[0])
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["number"] = _number
    return environment.from_string(files.joinpath("page.html.j2").read_text("utf-8")).render(
        title=title,
        note=note,
        sections=sections,
        scales=_scales(sections),
        facts=_facts([section.entry.result for section in sections]),
        states=Counter(section.entry.result.state.value for section in sections),
        masks=sum(len(section.rows) for section in sections),
        scored=sum(row.component.skipped is None for section in sections for row in section.rows),
        style=Markup(files.joinpath("page.css").read_text("utf-8")),
        script=Markup(files.joinpath("page.js").read_text("utf-8")),
    )


def _section(entry: ReportEntry) -> _Section:
    components = entry.result.components
    photo, problem = None, entry.missing
    if entry.image is not None and entry.result.image is not None:
        try:
            photo = open_photo(entry.image, entry.result.image)
        except PhotoError as error:
            problem = str(error)
    scale = min(1.0, _LONGEST_SIDE / max(photo.size)) if photo else 1.0
    rows = [
        _Row(number, component, grade_of(component), _pictures(entry, component, photo, scale) if photo else None)
        for number, component in enumerate(components)
    ]
    return _Section(
        entry,
        entry.job.image.uri if entry.job else entry.result.image.uri if entry.result.image else entry.result.job_id,
        rows,
        _shown(photo, scale) if photo else None,
        problem,
        sorted((row for row in rows if row.pictures), key=lambda row: -(row.component.area or 0)),
        [name for name in _UPSTREAM if any(name in component.upstream for component in components)],
    )


def _shown(photo: Image.Image, scale: float) -> str:
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return data_uri(photo.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=85)


def _pictures(entry: ReportEntry, component: Component, photo: Image.Image, scale: float) -> _Pictures | None:
    box, job, model = component.box, entry.job, entry.result.model
    mask = entry.masks[component.index] if component.index < len(entry.masks) else None
    if component.skipped or box is None or job is None or model is None or not isinstance(mask, Mask):
        return None
    try:
        bits = component_bits(mask, component, box, photo.size)
    except ValueError:
        # The masks' object was replaced since: the scores are still right, a picture would not be.
        return None
    options = job.options
    crop = crop_picture(photo, bits, box, treatment=options.treatment, alpha=options.alpha, size=model.image_size)
    x, y, width, height = box
    place = (x / photo.width, y / photo.height, width / photo.width, height / photo.height)
    left, top, across, down = (100 * part for part in place)
    return _Pictures(
        data_uri(layer(bits, grade_of(component).colour, scale), "PNG", optimize=True),
        crop_uri(crop),
        (left, top, across, down),
    )


def _scales(sections: Iterable[_Section]) -> list[tuple[str, list[_Bar]]]:
    """Return the legend, with counts: the scale of the multiplier, that of cosines, or both, as the results ask."""
    counts = Counter(row.grade for section in sections for row in section.rows)
    methods = {section.entry.result.method for section in sections}
    scales: list[tuple[str, list[Grade]]] = []
    if "cosine" not in methods or "softmax" in methods:
        scales.append(("multiplier", list(MULTIPLIER_GRADES.values())))
    if "cosine" in methods:
        scales.append(("s_pos − s_neg (cosines)", list(COSINE_GRADES)))
    if counts[NO_GRADE]:
        scales[-1][1].append(NO_GRADE)
    total = max(1, sum(counts.values()))
    return [(name, [_Bar(grade, counts[grade], 100 * counts[grade] / total) for grade in s]) for name, s in scales]


def _facts(results: Iterable[JobResult]) -> list[tuple[str, list[tuple[str, str, int]]]]:
    """Return what computed the scores: per kind of fact, each value as text, its digest, and how many jobs have it."""
    models: Counter[tuple[str, str]] = Counter()
    prompts: Counter[tuple[str, str]] = Counter()
    scoring: Counter[tuple[str, str]] = Counter()
    for result in results:
        if model := result.model:
            text = f"{model.architecture}, {model.image_size} px, {model.precision}, {model.crop_mode} crops"
            models[text, model.weights_digest] += 1
        if used := result.prompts:
            text = f"{used.name}: {used.positive} positive, {used.negative} negative"
            prompts[text + (f", {used.neutral} neutral" if used.neutral else ""), used.digest] += 1
        if result.treatment and result.method:
            scoring[f"{result.treatment}, {result.method}", ""] += 1
    kinds = {"Model": models, "Prompts": prompts, "Treatment, method": scoring}
    return [
        (kind, [(text, digest, count) for (text, digest), count in counter.most_common()])
        for kind, counter in kinds.items()
        if counter
    ]


def _number(value: object) -> str:
    """Write a number with three decimals, and anything else that an upstream tool may have given as it is."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
