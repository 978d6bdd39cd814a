"""Lists of masks: maskscore's own, SAM's records, COCO results. An entry may say of which image it is.

COCO results (https://cocodataset.org/#format-results) have ``image_id``; Detectron2's ``sem_seg_predictions.json`` has
``file_name``; what pycocotools' ``loadAnns`` returns has ``image_id`` beside an ``id`` of its own. SAM's records are
those of ``SamAutomaticMaskGenerator.generate`` in https://github.com/facebookresearch/segment-anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskscore.formats.format import Format, Grouping
from maskscore.formats.image_masks import ImageMasks, MasksDocumentError, Orphans
from maskscore.formats.json_stream import Grouped, items
from maskscore.formats.json_values import list_of
from maskscore.formats.masks_from_entries import masks_of
from maskscore.formats.read_context import ReadContext
from maskscore.schema import id_key, plain_id
from maskscore.text import counted

__all__ = ["COCO_RESULTS", "MASKSCORE", "SAM"]

# What says of which image an entry is; the first goes before the second.
_IMAGE_FIELDS = ("image_id", "file_name")


def _is_maskscore(document: Any) -> bool:
    # A list of objects with `masks` is one of documents.
    return _has_masks(document) or (isinstance(document, list) and not _has_masks(_first(document)))


def _has_masks(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("masks"), list)


def _is_sam(document: Any) -> bool:
    first = _first(document)
    return {"predicted_iou", "stability_score"} <= first.keys() and "id" not in first


def _is_results(document: Any) -> bool:
    first = _first(document)
    return {"image_id", "category_id", "score"} <= first.keys() or (
        "segmentation" in first and not first.keys().isdisjoint(_IMAGE_FIELDS)
    )


def _first(document: Any) -> dict[str, Any]:
    """Return the first entry of a list, where it is an object, else an empty one."""
    first = document[0] if isinstance(document, list) and document else None
    return first if isinstance(first, dict) else {}


def _entries(document: Any, context: ReadContext) -> list[Any]:
    entries = document.get("masks") if isinstance(document, dict) else document
    return _entries_of_image(list_of(entries, "a list of masks, or an object with `masks`"), context)


def _entries_of_results(document: Any, context: ReadContext) -> list[Any]:
    return _entries_of_image(list_of(document, "a list of COCO results"), context)


def _group_results(path: Path, grouped: Grouped) -> None:
    for entry in items(path, "item"):
        grouped.add_annotation(entry, _image_of(entry))


def _images_of_results(path: Path, grouped: Grouped, orphans: Orphans) -> Iterator[ImageMasks]:
    grouped.count_orphans(orphans, listed=False)
    for key, first in grouped.annotated():
        name, image_id = first.get("file_name"), plain_id(first.get("image_id"))
        yield ImageMasks(name if isinstance(name, str) else key, masks_of(grouped.annotations(key)), image_id)


def _image_of(entry: object) -> str | None:
    """Return the id of the image that an entry is of, or else its file name; ``None`` where it says neither."""
    if not isinstance(entry, dict):
        return None
    owner = id_key(entry.get("image_id"))
    name = entry.get("file_name")
    return owner if owner is not None or not isinstance(name, str) else name


def _entries_of_image(entries: list[Any], context: ReadContext) -> list[Any]:
    """Return the entries that are of the wanted image. Where they say nothing, or are all of one id, it is this one.

    Otherwise those with the wanted id are taken, or those of its file name, or those whose id is the name without its
    ending (``000000000139`` and ``139`` are the same). Of an id that the list has not, there are none: results have
    nothing of images in which nothing was found. Raises :class:`~maskscore.formats.MasksDocumentError` where none or
    several images are so called.
    """
    owners: dict[str, Any] = {}
    for entry in entries:
        owner = _image_of(entry)
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
            f"The list has masks of {counted(len(owners), 'image')} ({some}"
            f"{', ...' if len(owners) > 3 else ''}), and {len(found) or 'none'} of them with {context.words}: give "
            "`image_id` beside the masks' URI, or the list as the dataset file of its images."
        )
    kept = []
    for entry in entries:
        owner = _image_of(entry)
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


MASKSCORE = Format(
    name="maskscore",
    scope="image",
    description="a JSON list of masks, or an object with `masks`",
    kinds=("json",),
    recognises=_is_maskscore,
    entries=_entries,
)
SAM = Format(
    name="sam",
    scope="image",
    description="JSON list of records of SAM's or SAM 2's automatic mask generator",
    kinds=("json",),
    recognises=_is_sam,
    entries=_entries,
)
COCO_RESULTS = Format(
    name="detectron2",
    scope="dataset",
    description="COCO results: a JSON list of annotations with `image_id`",
    kinds=("json",),
    recognises=_is_results,
    entries=_entries_of_results,
    grouping=Grouping(_group_results, _images_of_results),
)
