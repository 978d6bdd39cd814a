"""Masks of one image, from the bytes of one object or file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from maskscore.formats.containers import MOST_BYTES, unwrapped
from maskscore.formats.detection import Kind, kind_of, starts_with_class
from maskscore.formats.json_documents import json_entries, layout_of_json, parse_json
from maskscore.formats.layouts import layout_named
from maskscore.formats.masks_from_entries import masks_of
from maskscore.formats.optional_modules import formats_extra
from maskscore.formats.outcomes import MasksDocumentError, Orphans, Size, UnreadableMask
from maskscore.formats.read_context import MOST_PIXELS, ReadContext
from maskscore.formats.registry import REGISTERED, recognised_text
from maskscore.formats.yolo import entries_of_labels_text
from maskscore.schema import Mask

__all__ = ["read_masks"]


def read_masks(
    data: bytes,
    *,
    image_name: str | None = None,
    image_id: int | str | None = None,
    check_count: Callable[[int], object] | None = None,
    format: str | None = None,
    size: Size | None = None,
    max_pixels: int = MOST_PIXELS,
    max_bytes: int = MOST_BYTES,
    orphans: Orphans | None = None,
    file_name: str | None = None,
    doubts: list[str] | None = None,
) -> list[Mask | UnreadableMask]:
    """Read the masks of one image, in the order of the file.

    ``format`` is a name of :data:`~maskscore.formats.FORMATS`; without it the content decides. ``image_name`` (a path
    or file name; folders decide between images of one name) and ``image_id`` find the image in a file of many. ``size``
    is the image's ``(height, width)``: it turns normalised polygons into pixels, and decides the order of an array's
    axes. ``check_count`` is called with the number of entries before they are read, and may raise. Masks of more than
    ``max_pixels`` are not unpacked, nor is a file of gzip or ZIP to more than ``max_bytes``. ``orphans`` counts the
    annotations that a file of many images has of none of them; without it, a warning says how many there are.
    ``file_name`` is the masks file's own name or URI: one that ends in ``.txt`` and is empty, or has a class alone, is
    YOLO's, of an image without objects. ``doubts`` gets a sentence where the masks may mean something else than was
    read, such as a background that is a mask; without it, it is a warning.

    Every field but ``id`` and ``segmentation`` is kept for ``upstream``. Ids, and what becomes of entries that are no
    masks: :func:`~maskscore.formats.masks_from_entries.masks_of`.

    Raises :class:`~maskscore.formats.MasksDocumentError`, and nothing else, whatever the bytes are.
    """
    context = ReadContext(image_name, image_id, size, check_count, max_pixels)
    if orphans is not None:
        context.orphans = orphans
    if doubts is not None:
        context.doubts = doubts
    name = layout_named(format).name if format is not None else None
    if name is None and (file_name or "").lower().endswith(".txt") and (not data.strip() or starts_with_class(data)):
        name = "yolo"
    with formats_extra():
        entries = _entries(unwrapped(data, max_bytes), name, context)
    context.counted(len(entries))
    if orphans is None and context.orphans.count:
        warnings.warn(f"{context.orphans}; they are left out.", stacklevel=2)
    for doubt in context.doubts if doubts is None else ():
        warnings.warn(doubt, stacklevel=2)
    return masks_of(entries, context.polygon_size)


def _entries(data: bytes, name: str | None, context: ReadContext) -> list[Any]:
    if name is None and (not data or data.isspace()):
        raise MasksDocumentError(
            "The masks file is empty. If it is YOLO's label text of an image without objects, end its name in .txt, or "
            "say the format: yolo."
        )
    kind = kind_of(data)
    if name is not None and kind not in _kinds(name):
        raise MasksDocumentError(f"The masks were to be of the format {name}, but they are {_WORDS[kind]}.")
    if kind in ("png", "picture"):
        from maskscore.formats.png import entries_of_png

        return entries_of_png(data, name, context)
    if kind in ("npz", "npy"):
        from maskscore.formats.npz import entries_of_npz

        return entries_of_npz(data, context)
    if kind == "xml":
        from maskscore.formats.cvat import entries_of_cvat

        return entries_of_cvat(data, context)
    if name == "yolo" and data.lstrip()[:1] in (b"[", b"{"):
        raise MasksDocumentError("The masks were to be of the format yolo, lines of numbers, but they are JSON.")
    if name == "yolo" or (kind == "numbers" and name is None):
        return entries_of_labels_text(data, context)
    if kind == "lines":
        return REGISTERED[name or recognised_text(data[:_HEAD_BYTES].lstrip()) or ""].entries(data, context)
    document = parse_json(data)
    return json_entries(document, name or layout_of_json(document), context)


def _kinds(name: str) -> tuple[Kind, ...]:
    registered = REGISTERED.get(name)
    if registered is not None:
        return () if registered.kind == "folder" else (registered.kind,)
    return _KINDS.get(name, ("json",))


_HEAD_BYTES = 4096
_KINDS: Mapping[str, tuple[Kind, ...]] = {
    "png-labels": ("png", "picture"),
    "png-binary": ("png", "picture"),
    "coco-panoptic": ("png", "picture", "json"),
    "npz": ("npz", "npy"),
    "cvat": ("xml",),
    # A file of an image without objects is empty, which has no kind of its own.
    "yolo": ("numbers", "json"),
    "sam-folder": (),
}
_WORDS: Mapping[Kind, str] = {
    "png": "a PNG",
    "picture": "a TIFF, BMP, GIF or JPEG",
    "npz": "a ZIP archive or NPZ",
    "npy": "an NPY",
    "xml": "XML",
    "numbers": "lines of numbers",
    "lines": "lines of KITTI MOTS",
    "json": "JSON, or nothing that is known",
}
