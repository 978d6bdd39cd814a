"""CVAT for images 1.1: XML with masks as runs inside a box, and polygons.

Source: https://docs.cvat.ai/docs/other/xml_format. A mask's ``rle`` are run lengths, row by row inside its box, the
first counting zeros; ``left``, ``top``, ``width`` and ``height`` are the box in pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

from maskscore.formats.containers import opened
from maskscore.formats.format import Format
from maskscore.formats.image_masks import ImageMasks, MasksDocumentError, Orphans, Size, UnreadableMask
from maskscore.formats.image_names import Likeness
from maskscore.formats.masks_from_entries import masks_of, unread_box
from maskscore.formats.read_context import ReadContext
from maskscore.text import counted

__all__ = ["FORMAT"]


def _images(path: Path, _: Orphans) -> Iterator[ImageMasks]:
    """Yield the masks of each image, with one image in memory at a time.

    Raises :class:`~maskscore.formats.MasksDocumentError` where the XML is damaged, or has a DTD or entities.
    """
    with opened(path) as file:
        for image in _elements(file):
            name, image_id, size = image.get("name"), image.get("id"), _size(image)
            yield ImageMasks(name or str(image_id), masks_of(_shapes(image, ReadContext()), size), image_id, size)


def _entries(data: bytes, context: ReadContext) -> list[Any]:
    """Return the entries of the wanted image; of the only one, where there is one.

    Raises :class:`~maskscore.formats.MasksDocumentError` as :func:`_images` does, and where the image is not
    found.
    """
    found: list[list[Any]] = []
    nearest: Likeness | None = None
    only: list[Any] = []
    size: Size | None = None
    count = 0
    for image in _elements(io.BytesIO(data)):
        count += 1
        like = context.likeness(image.get("name")) if context.id is None else None
        if like is not None and (nearest is None or like < nearest):
            nearest, found = like, []
        named = context.has_id(image.get("id")) if context.id is not None else like is not None and like == nearest
        if count == 1 and context.id is None:
            only = _shapes(image, context)
            size = _size(image)
        if named:
            found.append(only if count == 1 and context.id is None else _shapes(image, context))
            size = _size(image)
    context.polygon_size = size
    if count == 1 and context.id is None:
        return only
    if len(found) != 1:
        raise MasksDocumentError(
            f"The XML has {len(found) or 'no'} images with {context.words}, of {count}. Give `image_id` beside the "
            "masks' URI."
        )
    return found[0]


def _elements(file: IO[bytes]) -> Iterator[Element]:
    """Yield the ``image`` elements, each gone when the next is asked for."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    images = tracks = 0
    try:
        events = iter(iterparse(file, events=("start", "end"), forbid_dtd=True))
        _, root = next(events)
        for event, element in events:
            if event == "start" or element.tag not in ("image", "track"):
                continue
            if element.tag == "image":
                images += 1
                yield element
            else:
                tracks += 1
            root.clear()
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MasksDocumentError(f"The masks are not XML that can be read: {reason}.") from error
    if tracks and not images:
        raise MasksDocumentError("This is CVAT for video, whose tracks are of no images. Export CVAT for images 1.1.")
    if root.tag != "annotations":
        raise MasksDocumentError(f"The masks are XML, but not CVAT's: its outermost element is {root.tag!r:.60}.")


def _size(image: Element) -> Size | None:
    try:
        height, width = int(image.get("height", "")), int(image.get("width", ""))
    except ValueError:
        return None
    return (height, width) if height > 0 and width > 0 else None


def _shapes(image: Element, context: ReadContext) -> list[Any]:
    shapes = [shape for shape in image if shape.tag in ("mask", "polygon")]
    if not shapes:
        shapes = [shape for shape in image if shape.tag == "box"]
    context.counted(len(shapes))
    return [_entry(shape, _size(image), context, index) for index, shape in enumerate(shapes)]


def _entry(shape: Element, size: Size | None, context: ReadContext, index: int) -> Any:
    fields = _fields(shape)
    if shape.tag == "box":
        return unread_box(str(index), fields)
    try:
        segmentation = _mask(shape.attrib, size, context) if shape.tag == "mask" else _polygon(shape.get("points", ""))
    except (ValueError, OverflowError, MasksDocumentError) as error:
        return UnreadableMask(str(index), f"Shape {index} ({shape.tag}) cannot be read: {str(error)[:300]}", fields)
    return {**fields, "segmentation": segmentation}


def _fields(shape: Element) -> dict[str, Any]:
    fields: dict[str, Any] = {"label": shape.get("label")}
    if "occluded" in shape.attrib:
        fields["occluded"] = shape.get("occluded") == "1"
    for name in ("source", "z_order", "group_id"):
        if name in shape.attrib:
            fields[name] = shape.get(name)
    attributes = {str(item.get("name")): item.text or "" for item in shape.iter("attribute")}
    return {**fields, "attributes": attributes} if attributes else fields


def _mask(attributes: Mapping[str, str], size: Size | None, context: ReadContext) -> Any:
    import numpy as np

    from maskscore.masks.arrays import rle_in_box

    if size is None:
        raise ValueError("its image has no width and height.")
    left, top, width, height = (int(attributes.get(name, "")) for name in ("left", "top", "width", "height"))
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[1] or top + height > size[0]:
        raise ValueError(
            f"its box of {width} x {height} at {left}, {top} is not inside the image of {size[1]} x {size[0]} pixels."
        )
    context.check_pixels(*size)
    # Unpacked are the columns that the box takes.
    context.unpack(size[0] * width)
    runs = [int(run) for run in attributes.get("rle", "").split(",")]
    if min(runs) < 0 or sum(runs) != width * height:
        raise ValueError(f"its runs are of {counted(sum(runs), 'pixel')}, its box of {width * height:,}.")
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    return rle_in_box(bits, left, top, size)


def _polygon(points: str) -> list[list[float]]:
    pairs = [pair.split(",") for pair in points.split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("its points are not pairs of numbers.")
    return [[float(number) for pair in pairs for number in pair]]


FORMAT = Format(
    name="cvat",
    scope="dataset",
    description="CVAT for images 1.1: XML with masks and polygons",
    kinds=("xml",),
    entries=_entries,
    images=_images,
)
