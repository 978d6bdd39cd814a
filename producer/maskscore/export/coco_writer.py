"""COCO's JSON (https://cocodataset.org/#format-data) with the scores as fields of the annotations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from typing import IO, Any, Final

from pydantic_core import from_json

from maskscore.client import Batch, Client
from maskscore.export.buffered_masks import buffered_masks
from maskscore.export.categories import Categories, read_categories
from maskscore.export.export_counts import ExportCounts
from maskscore.export.exported_mask import DECISIONS
from maskscore.export.mask_buffer import MaskBuffer
from maskscore.export.parts_source import Parts
from maskscore.export.selection import Selection
from maskscore.storage import Output, file_name_of, output_file

__all__ = ["scores_of", "write_coco"]

_SCORES: Final = (
    "job_id",
    "mask_id",
    "part",
    "rank_score",
    "semantic_multiplier",
    "s_pos",
    "s_neg",
    "s_pos_text",
    "s_neg_text",
    "p_pos_sum",
    "p_neg_sum",
    *DECISIONS,
    "skipped",
    "top_k",
    "embedding",
    "displaced",
)
# FiftyOne gives an annotation's further fields to its label as arguments, where these names mean something else:
# https://docs.voxel51.com/api/fiftyone.core.labels.html#fiftyone.core.labels.Detection
_TAKEN: Final = frozenset(
    (
        "label",
        "bounding_box",
        "mask",
        "mask_path",
        "confidence",
        "index",
        "tags",
        "attributes",
        "points",
        "closed",
        "filled",
    )
)
_OFTEN_ABSENT: Final = (*DECISIONS, "part", "skipped", "top_k", "embedding", "displaced")


def write_coco(
    client: Client, jobs: Batch | Parts | Iterable[str], output: Output, selection: Selection | None = None
) -> ExportCounts:
    """Write ``images``, ``annotations`` and ``categories``.

    Raises as :func:`maskscore.export.write_jsonl` does, and :class:`~maskscore.errors.InvalidDocumentError` where the
    masks are of files that give one category's id different names.

    Images keep the ids that the upstream tool's files give them where all have one and no two the same; otherwise they
    are numbered. Annotations are numbered from 1 in the order that was asked for. ``category_id`` and ``iscrowd`` are
    the upstream tool's; masks without a category are of one called ``object``. With labels, the categories are the
    labels, and an upstream ``category_id`` is kept as ``upstream_category_id``.
    """
    place = output_file(output, client.objects, content_type="application/json")
    with buffered_masks(client, jobs, selection, place) as (path, buffer, counts):
        categories = read_categories(client, buffer)
        with path.open("w", encoding="utf-8") as file:
            _write(file, buffer, categories)
    return counts


def scores_of(mask: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that an annotation gets beside its format's own; those that are rare, where they are."""
    return {name: mask[name] for name in _SCORES if name not in _OFTEN_ABSENT or mask.get(name) is not None}


def _write(file: IO[str], buffer: MaskBuffer, categories: Categories) -> None:
    info = {
        "description": "Segmentation masks with the scores of maskscore",
        "version": metadata.version("maskscore"),
        "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    kept_ids = buffer.image_ids_are_unique()
    file.write('{"info": ' + json.dumps(info))
    if buffer.licenses:
        file.write(', "licenses": ' + json.dumps(list(buffer.licenses.values())))
    entries = [{**entry, "id": number} for number, entry in categories.entries.items()]
    file.write(', "categories": ' + json.dumps(entries))
    file.write(',\n"images": [')
    _write_list(file, _images(buffer, kept_ids=kept_ids))
    file.write('],\n"annotations": [')
    _write_list(file, _annotations(buffer, categories, kept_ids=kept_ids))
    file.write("]}\n")


def _write_list(file: IO[str], entries: Iterator[dict[str, Any]]) -> None:
    separator = "\n"
    for entry in entries:
        file.write(separator + json.dumps(entry))
        separator = ",\n"


def _images(buffer: MaskBuffer, *, kept_ids: bool) -> Iterator[dict[str, Any]]:
    for image in buffer.images():
        yield {
            "file_name": file_name_of(image.uri),
            **image.entry,
            "id": image.image_id if kept_ids else image.number,
            "width": image.width,
            "height": image.height,
            "uri": image.uri,
        }


def _annotations(buffer: MaskBuffer, categories: Categories, *, kept_ids: bool) -> Iterator[dict[str, Any]]:
    taken = _TAKEN if categories.ids is None else _TAKEN | {"category_id"}
    for number, row in enumerate(buffer.masks(), start=1):
        mask = from_json(row.json)
        yield {
            **{f"upstream_{name}" if name in taken else name: value for name, value in mask["upstream"].items()},
            "id": number,
            "image_id": row.image_id if kept_ids else row.image,
            "category_id": categories.id_of(row),
            "segmentation": mask["segmentation"],
            "bbox": mask["box"],
            "area": mask["area"],
            "iscrowd": int(mask["upstream"].get("iscrowd") in (1, True)),
            **scores_of(mask),
        }
