"""LabelMe's JSON, one file per image: ``shapes`` with polygons, and masks as PNGs in base64.

Source: ``LabelFile`` and ``shapes_to_label`` in https://github.com/wkentaro/labelme (``labelme/_label_file.py``,
``labelme/utils/shape.py``). Shapes with the same label and ``group_id`` are one instance there, and one mask here.
"""

from __future__ import annotations

import math
from typing import Any

from maskscore.formats.format import Format, Stated
from maskscore.formats.image_masks import MasksDocumentError, Size, UnreadableMask
from maskscore.formats.json_values import bytes_of_base64, flat_points, rle_of_picture, size_of
from maskscore.formats.read_context import ReadContext

__all__ = ["FORMAT"]


def _recognises(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and isinstance(document.get("shapes"), list)
        and ("imagePath" in document or "imageHeight" in document)
    )


def _stated(document: Any) -> Stated:
    fields = document if isinstance(document, dict) else {}
    path = fields.get("imagePath")
    # Written on Windows it has backslashes; LabelMe itself reads them as slashes.
    name = path.replace("\\", "/") if isinstance(path, str) else None
    return Stated(name, size_of(fields.get("imageHeight"), fields.get("imageWidth")))


def _entries(document: Any, context: ReadContext) -> list[Any]:
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(shapes, list):
        raise MasksDocumentError("The masks are not in the layout that was asked for: LabelMe's, with `shapes`.")
    context.counted(len(shapes))
    size = _stated(document).size
    entries: list[Any] = []
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for index, shape in enumerate(shapes):
        entry = _entry(shape, size, context, index)
        group = _group(entry, shape)
        if group is not None and group in groups:
            groups[group]["segmentation"] += entry["segmentation"]
            continue
        if group is not None:
            groups[group] = entry
        entries.append(entry)
    return entries


def _group(entry: Any, shape: Any) -> tuple[str, str] | None:
    """Return what the polygons of one instance have in common; ``None`` for whatever stands alone."""
    if not isinstance(entry, dict) or not isinstance(entry["segmentation"], list) or shape.get("group_id") is None:
        return None
    return str(shape.get("label")), str(shape["group_id"])


def _entry(shape: Any, size: Size | None, context: ReadContext, index: int) -> Any:
    if not isinstance(shape, dict):
        return shape
    kind = shape.get("shape_type") or "polygon"
    fields = {name: shape[name] for name in ("label", "group_id", "description", "flags") if shape.get(name)}
    try:
        if kind == "polygon":
            return {**fields, "segmentation": [flat_points(shape.get("points"))]}
        if kind == "mask":
            return {**fields, "segmentation": _mask(shape, size, context)}
        message = f"Shape {index} is of the type {kind!r:.60}, and no mask: polygons and masks are read."
    except (ValueError, OverflowError, MasksDocumentError) as error:
        message = f"Shape {index} ({kind!s:.60}) cannot be read: {str(error)[:300]}"
    return UnreadableMask(str(index), message, fields)


def _mask(shape: dict[str, Any], size: Size | None, context: ReadContext) -> Any:
    corner = flat_points(shape.get("points"))
    return rle_of_picture(
        bytes_of_base64(shape.get("mask")), math.floor(corner[0]), math.floor(corner[1]), size, context
    )


FORMAT = Format(
    name="labelme",
    scope="image",
    description="LabelMe's JSON: `shapes` with polygons and masks",
    kinds=("json",),
    recognises=_recognises,
    entries=_entries,
    stated=_stated,
)
