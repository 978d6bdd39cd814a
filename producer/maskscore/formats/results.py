"""Lists of annotations, each of which may say of which image it is: COCO results, and what COCO's tools list.

COCO results (https://cocodataset.org/#format-results) have ``image_id``; Detectron2's ``sem_seg_predictions.json`` has
``file_name``; what pycocotools' ``loadAnns`` returns has ``image_id`` beside an ``id`` of its own.
"""

from __future__ import annotations

from typing import Any

from maskscore.formats.json_values import size_of
from maskscore.formats.outcomes import MasksDocumentError, Size
from maskscore.formats.read_context import ReadContext
from maskscore.schema import id_key, plain_id

__all__ = ["IMAGE_FIELDS", "entries_of_image", "image_of_entry", "stated_size"]

IMAGE_FIELDS = ("image_id", "file_name")
"""What says of which image an entry is; the first goes before the second."""


def image_of_entry(entry: object) -> str | None:
    """Return the id of the image that an entry is of, or else its file name; ``None`` where it says neither."""
    if not isinstance(entry, dict):
        return None
    owner = id_key(entry.get("image_id"))
    name = entry.get("file_name")
    return owner if owner is not None or not isinstance(name, str) else name


def entries_of_image(entries: list[Any], context: ReadContext) -> list[Any]:
    """Return the entries that are of the wanted image. Where they say nothing, or are all of one id, it is this one.

    Otherwise those with the wanted id are taken, or those of its file name, or those whose id is the name without its
    ending (``000000000139`` and ``139`` are the same). Of an id that the list has not, there are none: results have
    nothing of images in which nothing was found. Raises :class:`~maskscore.formats.MasksDocumentError` where none or
    several images are so called.
    """
    owners: dict[str, Any] = {}
    for entry in entries:
        owner = image_of_entry(entry)
        if owner is not None:
            owners.setdefault(owner, entry)
    only = next(iter(owners.values())) if len(owners) == 1 else None
    if not owners or (only is not None and context.id is None and (context.name is None or not _named(only))):
        return entries
    found = _wanted(owners, context)
    if not found and context.id is not None and not any(map(_named, owners.values())):
        return []
    if len(found) != 1:
        some = ", ".join(f"{owner:.60}" for owner in list(owners)[:3])
        raise MasksDocumentError(
            f"The list has masks of {len(owners):,} image{'' if only else 's'} ({some}"
            f"{', ...' if len(owners) > 3 else ''}), and {len(found) or 'none'} of them with {context.words}: give "
            "`image_id` beside the masks' URI, or the list as the dataset file of its images."
        )
    kept = []
    for entry in entries:
        owner = image_of_entry(entry)
        if owner == found[0]:
            kept.append(entry)
        elif owner is None:
            context.orphans.add(None)
    return kept


def _named(entry: dict[str, Any]) -> bool:
    return id_key(entry.get("image_id")) is None


def _wanted(owners: dict[str, Any], context: ReadContext) -> list[str]:
    if context.id is not None:
        return [owner for owner in owners if context.has_id(owner)]
    keys = list(owners)
    named = context.called(entry.get("file_name") for entry in owners.values())
    if named:
        return [keys[position] for position in named]
    stem = (context.file_name or "").rsplit(".", 1)[0]
    return [owner for owner in keys if owner == stem or (stem.isdecimal() and owner == (stem.lstrip("0") or "0"))]


def stated_size(image: object) -> Size | None:
    """Return ``(height, width)`` of an image's entry in a file of COCO's kinds, where it has them."""
    if not isinstance(image, dict):
        return None
    return size_of(plain_id(image.get("height")), plain_id(image.get("width")))
