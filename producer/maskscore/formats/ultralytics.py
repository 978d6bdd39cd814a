"""Ultralytics' JSON: what ``result.summary()`` and ``result.to_json()`` give, one list per image.

Each object has ``name``, ``class``, ``confidence``, ``box`` and ``segments`` with the outline's ``x`` and ``y`` lists,
in pixels, or from 0 to 1 with ``normalize=True``. Source: ``Results.summary`` in
https://github.com/ultralytics/ultralytics (``ultralytics/engine/results.py``).
"""

from __future__ import annotations

from typing import Any

from maskscore.formats.format import Format
from maskscore.formats.image_masks import UnreadableMask
from maskscore.formats.json_values import is_number, list_of
from maskscore.formats.read_context import ReadContext

__all__ = ["FORMAT"]


def _recognises(document: Any) -> bool:
    first = document[0] if isinstance(document, list) and document else None
    return isinstance(first, dict) and (
        "segments" in first or ("segmentation" not in first and {"box", "class", "confidence"} <= first.keys())
    )


def _entries(document: Any, context: ReadContext) -> list[Any]:
    """Return an entry per object, with the outline as a polygon in pixels of the image.

    An object without ``segments`` is a box, and becomes an :class:`~maskscore.formats.UnreadableMask`. Raises
    :class:`~maskscore.formats.MasksDocumentError` for normalised outlines where the image's size is not known.
    """
    objects = list_of(document, "Ultralytics', a list")
    outlines = [_outline(item) for item in objects]
    numbers = [number for outline in outlines if outline for number in outline]
    scale = (1.0, 1.0)
    # An outline in pixels that keeps to the image's first pixel would be of no size.
    if numbers and max(numbers) <= 1:
        height, width = context.needed_size("The outlines are normalised to 0 ... 1")
        scale = (float(width), float(height))
    return [
        _entry(item, outline, scale, index) for index, (item, outline) in enumerate(zip(objects, outlines, strict=True))
    ]


def _outline(item: Any) -> list[float] | None:
    segments = item.get("segments") if isinstance(item, dict) else None
    if not isinstance(segments, dict):
        return None
    xs, ys = segments.get("x"), segments.get("y")
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        return None
    if not all(map(is_number, xs + ys)):
        return None
    return [number for pair in zip(xs, ys, strict=True) for number in pair]


def _entry(item: Any, outline: list[float] | None, scale: tuple[float, float], index: int) -> Any:
    if not isinstance(item, dict):
        return item
    fields = {name: value for name, value in item.items() if name != "segments"}
    if outline is None:
        message = f"Entry {index} has no `segments` with two equally long lists of numbers `x` and `y`: it is no mask."
        return UnreadableMask(str(index), message, fields)
    try:
        scaled = [number * scale[position % 2] for position, number in enumerate(outline)]
    except OverflowError:
        return UnreadableMask(str(index), f"Entry {index} has a number without bounds.", fields)
    return {**fields, "segmentation": [scaled], "polygon_convention": "opencv"}


FORMAT = Format(
    name="ultralytics",
    scope="image",
    description="JSON of an Ultralytics result: objects with `segments`",
    kinds=("json",),
    recognises=_recognises,
    entries=_entries,
)
