"""Masks of one image, from the bytes of one object or file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maskscore.formats.document import MasksDocumentError, Size, UnreadableMask
from maskscore.formats.entries import masks_of
from maskscore.formats.json_documents import json_entries, layout_of_json, parse_json
from maskscore.formats.layouts import layout_named
from maskscore.formats.sought import MOST_PIXELS, Sought
from maskscore.job import Mask

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
) -> list[Mask | UnreadableMask]:
    """Read the masks of one image, in the order of the file.

    ``format`` is a name of :data:`~maskscore.formats.FORMATS`; without it the content decides. ``image_name`` (a file
    name without folders) and ``image_id`` find the image in a file of many. ``size`` is the image's ``(height, width)``:
    it turns normalised polygons into pixels, and decides the order of an array's axes. ``check_count`` is called with
    the number of entries before they are read, and may raise. Masks of more than ``max_pixels`` are not unpacked.

    Every field but ``id`` and ``segmentation`` is kept for ``upstream``. Ids, and what becomes of entries that are no
    masks: :func:`~maskscore.formats.entries.masks_of`.

    Raises :class:`~maskscore.formats.MasksDocumentError`, and nothing else, whatever the bytes are.
    """
    sought = Sought(image_name, image_id, size, check_count, max_pixels)
    name = layout_named(format).name if format is not None else None
    entries = _entries(data, name, sought)
    sought.counted(len(entries))
    return masks_of(entries)


def _entries(data: bytes, name: str | None, sought: Sought) -> list[Any]:
    document = parse_json(data)
    return json_entries(document, name or layout_of_json(document), sought)
