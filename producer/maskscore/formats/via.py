"""VGG Image Annotator 1 and 2: the project file, and the annotations alone, as JSON.

Source: https://www.robots.ox.ac.uk/~vgg/software/via/docs/face_track_annotation.html and the application's own export;
an image is ``{"filename": ..., "size": BYTES, "regions": [{"shape_attributes": ..., "region_attributes": ...}]}``, and
``regions`` of version 1 is an object with numbers for names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskscore.formats.format import Format
from maskscore.formats.image_masks import ImageMasks, MasksDocumentError, Orphans, UnreadableMask
from maskscore.formats.json_stream import members
from maskscore.formats.json_values import is_number
from maskscore.formats.masks_from_entries import masks_of
from maskscore.formats.read_context import ReadContext

__all__ = ["FORMAT"]

_METADATA = "_via_img_metadata"


def _recognises(document: Any) -> bool:
    if not isinstance(document, dict):
        return False
    return isinstance(document.get(_METADATA), dict) or _is_image(next(iter(document.values()), None))


def _is_image(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("filename"), str) and "regions" in value


def _entries(document: Any, context: ReadContext) -> list[Any]:
    images = document.get(_METADATA, document) if isinstance(document, dict) else None
    if not isinstance(images, dict):
        raise MasksDocumentError("The masks are not in the layout that was asked for: VIA's, images by their names.")
    known = [(key, image) for key, image in images.items() if _is_image(image)]
    if context.id is not None:
        found = [image for key, image in known if key == str(context.id)]
    elif len(known) == 1:
        found = [known[0][1]]
    else:
        found = [known[position][1] for position in context.called(image["filename"] for _, image in known)]
    if len(found) != 1:
        raise MasksDocumentError(
            f"VIA's file has {len(found) or 'no'} images with {context.words}, of {len(known)}. Give the image's name "
            "in the file, such as `a.jpg12345`, as `image_id` beside the masks' URI."
        )
    return _of_image(found[0], context)


def _images(path: Path, _: Orphans) -> Iterator[ImageMasks]:
    for prefix in (_METADATA, ""):
        found = False
        for key, image in members(path, prefix):
            if _is_image(image):
                found = True
                yield ImageMasks(image["filename"], masks_of(_of_image(image, ReadContext())), key)
        if found:
            return


def _of_image(image: dict[str, Any], context: ReadContext) -> list[Any]:
    regions = image["regions"]
    listed = list(regions.values()) if isinstance(regions, dict) else regions
    if not isinstance(listed, list):
        raise MasksDocumentError(f"VIA's `regions` of {image['filename']!r:.200} are not a list.")
    context.counted(len(listed))
    return [_entry(region, index) for index, region in enumerate(listed)]


def _entry(region: Any, index: int) -> Any:
    if not isinstance(region, dict):
        return region
    fields = {name: value for name, value in region.items() if name != "shape_attributes"}
    given = region.get("shape_attributes")
    shape = given if isinstance(given, dict) else {}
    kind = shape.get("name")
    if kind != "polygon":
        message = f"Region {index} is of the shape {kind!r:.60}, and no mask: polygons are read."
        return UnreadableMask(str(index), message, fields)
    xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys) or not all(map(is_number, xs + ys)):
        message = f"Region {index} has no `all_points_x` and `all_points_y`, lists of as many numbers."
        return UnreadableMask(str(index), message, fields)
    return {**fields, "segmentation": [[number for pair in zip(xs, ys, strict=True) for number in pair]]}


FORMAT = Format(
    name="via",
    scope="dataset",
    description="VGG Image Annotator (VIA) 1 and 2: project or annotations as JSON",
    kinds=("json",),
    recognises=_recognises,
    entries=_entries,
    images=_images,
)
