"""Masks of one image, from the bytes of one object or file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from maskscore.formats import yolo
from maskscore.formats.containers import MOST_BYTES, unwrapped
from maskscore.formats.detection import content_of, format_of, kind_of, text_head
from maskscore.formats.format import Format, Kind, formats_extra
from maskscore.formats.image_masks import MasksDocumentError, Orphans, Size, UnreadableMask
from maskscore.formats.json_documents import entries_of_json
from maskscore.formats.masks_from_entries import masks_of
from maskscore.formats.read_context import MOST_PIXELS, ReadContext
from maskscore.formats.registry import format_named, recognised
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
    is_label_file = (file_name or "").lower().endswith(".txt")
    if format is None and is_label_file and (not data.strip() or yolo.starts_with_class(text_head(data))):
        format = yolo.FORMAT.name
    named = format_named(format) if format is not None else None
    with formats_extra():
        entries = _entries(unwrapped(data, max_bytes), named, context)
    context.counted(len(entries))
    if orphans is None and context.orphans.count:
        warnings.warn(f"{context.orphans}; they are left out.", stacklevel=2)
    for doubt in context.doubts if doubts is None else ():
        warnings.warn(doubt, stacklevel=2)
    return masks_of(entries, context.polygon_size)


def _entries(data: bytes, named: Format | None, context: ReadContext) -> list[Any]:
    if named is None and (not data or data.isspace()):
        raise MasksDocumentError(
            "The masks file is empty. If it is YOLO's label text of an image without objects, end its name in .txt, or "
            "say the format: yolo."
        )
    kind = kind_of(data)
    if named is not None:
        kind = _checked(named, kind, data)
    content = content_of(data, kind, context)
    context.format_is_guessed = named is None
    format_ = named or format_of(content, kind)
    return entries_of_json(content, format_, context) if kind == "json" else format_.entries(content, context)


def _checked(named: Format, kind: Kind, data: bytes) -> Kind:
    """Return the kind as which the data are read. Raises MasksDocumentError where the format has no such files."""
    words = _WORDS[kind]
    if kind in named.kinds:
        other = recognised("text", text_head(data)) if kind == "text" else None
        if other is None or other is named:
            return kind
        words = other.description
    # Text that is not recognised, such as that of an image without objects, which is empty.
    if kind == "json" and "text" in named.kinds and data.lstrip()[:1] not in (b"[", b"{"):
        return "text"
    raise MasksDocumentError(f"The masks were to be of the format {named.name}, but they are {words}.")


_WORDS: Mapping[Kind, str] = {
    "png": "a PNG",
    "picture": "a TIFF, BMP, GIF or JPEG",
    "npz": "a ZIP archive or NPZ",
    "npy": "an NPY",
    "xml": "XML",
    "text": "lines of text",
    "json": "JSON, or nothing that is known",
}
