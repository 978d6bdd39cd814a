"""Supervisely's JSON, one file per image: ``objects`` with bitmaps and polygons.

Source: https://docs.supervisely.com/data-organization/00_ann_format_navi and ``Bitmap.base64_2_data`` in
https://github.com/supervisely/supervisely (``supervisely/geometry/bitmap.py``): a bitmap is a PNG, packed by zlib, in
base64, at ``origin`` (x, y); a polygon has an ``exterior`` and ``interior`` rings, which are holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maskscore.formats.format import Format, Stated
from maskscore.formats.image_masks import MasksDocumentError, Size, UnreadableMask
from maskscore.formats.json_values import bytes_of_base64, flat_points, inflated, rle_of_picture, size_of
from maskscore.formats.masks_from_entries import id_of
from maskscore.formats.read_context import ReadContext
from maskscore.masks import filled_outline_spans, outline_steps
from maskscore.schema import RLE, text_from_counts

__all__ = ["FORMAT"]

_FIELDS = ("classTitle", "classId", "description", "tags", "labelerLogin", "createdAt", "updatedAt")
_PNG = b"\x89PNG"
# What a PNG has beside its pixels, with room to spare.
_MORE_BYTES = 1 << 16


def _recognises(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and isinstance(document.get("objects"), list)
        and isinstance(document.get("size"), dict)
        and {"height", "width"} <= document["size"].keys()
    )


def _stated(document: Any) -> Stated:
    size = document.get("size") if isinstance(document, dict) else None
    return Stated(None, size_of(size.get("height"), size.get("width")) if isinstance(size, dict) else None)


def _entries(document: Any, context: ReadContext) -> list[Any]:
    objects = document.get("objects") if isinstance(document, dict) else None
    if not isinstance(objects, list):
        raise MasksDocumentError("The masks are not in the layout that was asked for: Supervisely's, with `objects`.")
    context.counted(len(objects))
    size = _stated(document).size
    return [_entry(item, size, context, index) for index, item in enumerate(objects)]


def _entry(item: Any, size: Size | None, context: ReadContext, index: int) -> Any:
    if not isinstance(item, dict):
        return item
    fields = {name: item[name] for name in _FIELDS if item.get(name) not in (None, "", [])}
    kind = item.get("geometryType") or ("bitmap" if "bitmap" in item else None)
    try:
        if kind == "bitmap":
            return {"id": item.get("id"), **fields, "segmentation": _bitmap(item.get("bitmap"), size, context)}
        if kind == "polygon":
            segmentation = _polygon(item.get("points"), size, context)
            # Supervisely's own library draws polygons by OpenCV.
            drawn_by = {"polygon_convention": "opencv"} if isinstance(segmentation, list) else {}
            return {"id": item.get("id"), **fields, **drawn_by, "segmentation": segmentation}
        message = f"Object {index} is of the type {kind!r:.60}, and no mask: bitmaps and polygons are read."
    except (ValueError, OverflowError, MasksDocumentError) as error:
        message = f"Object {index} ({kind}) cannot be read: {str(error)[:300]}"
    return UnreadableMask(id_of(item.get("id"), index), message, fields)


def _bitmap(bitmap: Any, size: Size | None, context: ReadContext) -> Any:
    fields = bitmap if isinstance(bitmap, dict) else {}
    left, top = (int(number) for number in flat_points([fields.get("origin")]))
    data = bytes_of_base64(fields.get("data"))
    if not data.startswith(_PNG):
        height, width = size or (0, 0)
        context.check_pixels(height, width)
        data = inflated(data, 4 * height * width + _MORE_BYTES)
    return rle_of_picture(data, left, top, size, context)


def _polygon(points: Any, size: Size | None, context: ReadContext) -> Any:
    fields = points if isinstance(points, dict) else {}
    exterior = flat_points(fields.get("exterior"))
    rings = fields.get("interior") or []
    if not rings:
        return [exterior]
    holes = [flat_points(ring) for ring in rings] if isinstance(rings, list) else [flat_points(rings)]
    if size is None:
        raise ValueError("the image's height and width are not stated")
    return _rle_with_holes(exterior, holes, size, context)


def _rle_with_holes(
    exterior: Sequence[float], holes: Sequence[Sequence[float]], size: Size, context: ReadContext
) -> RLE:
    """Return the pixels of a polygon less those of its holes, each filled as ``cv2.fillPoly`` fills it.

    COCO's polygons have no holes. Supervisely draws them so: a hole takes the pixels under its outline away, too.

    ``exterior`` and ``holes`` are flat ``[x1, y1, x2, y2, ...]`` in pixels; ``size`` is the image's ``(height,
    width)``. Raises :class:`~maskscore.formats.MasksDocumentError` for outlines that are too long to be drawn, and for
    an image of too many pixels.
    """
    context.check_pixels(*size)
    context.unpack(size[0] * size[1])
    context.outline(sum(outline_steps(ring) for ring in (exterior, *holes)))
    rings = [filled_outline_spans(ring, *size) for ring in (exterior, *holes)]
    return RLE(size=size, counts=text_from_counts(_first_without_others(rings, size[0] * size[1])))


def _first_without_others(rings: Sequence[Sequence[tuple[int, int]]], pixels: int) -> list[int]:
    """Return the run lengths of what the first ring's half-open spans cover and no other's do; spans may overlap."""
    edges = sorted(
        (place, change, number > 0)
        for number, spans in enumerate(rings)
        for start, stop in spans
        for place, change in ((start, 1), (stop, -1))
    )
    depths = [0, 0]
    last = 0
    drawn = False
    result: list[int] = []
    for index, (place, change, is_hole) in enumerate(edges):
        depths[is_hole] += change
        if index + 1 < len(edges) and edges[index + 1][0] == place:
            continue
        now = depths[0] > 0 and not depths[1]
        if now != drawn:
            result.append(place - last)
            last, drawn = place, now
    return [*result, pixels - last]


FORMAT = Format(
    name="supervisely",
    scope="image",
    description="Supervisely's JSON: `objects` with bitmaps and polygons",
    kinds=("json",),
    recognises=_recognises,
    entries=_entries,
    stated=_stated,
)
