"""Label Studio's JSON-MIN export: a flat object per annotation, its regions under the names of the labelling tags.

Source: ``convert_to_json_min`` in https://github.com/HumanSignal/label-studio-sdk
(``src/label_studio_sdk/converter/converter.py``): the task's ``data``, its ``id``, and for each tag the ``value`` of
its results with ``original_width`` and ``original_height``. Regions have no ids there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from maskscore.formats.format import Format
from maskscore.formats.image_masks import ImageMasks, Orphans
from maskscore.formats.json_stream import items
from maskscore.formats.json_values import list_of
from maskscore.formats.label_studio import chosen_task, entries_of_task, masks_of_task
from maskscore.formats.read_context import ReadContext
from maskscore.schema import plain_id

__all__ = ["FORMAT"]

_OWN = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")


def _recognises(document: Any) -> bool:
    first = document[0] if isinstance(document, list) and document else document
    return (
        isinstance(first, dict)
        and "annotation_id" in first
        and {"annotator", "lead_time", "created_at"} & first.keys() != set()
        and "segmentation" not in first
    )


def _task(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the task that the records of one image would be in the full export."""
    data: dict[str, Any] = {}
    annotations = []
    task_id: Any = None
    for record in records:
        task_id = record.get("id")
        results = []
        for tag, values in record.items():
            if tag in _OWN:
                continue
            regions = [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
            if not regions:
                data.setdefault(tag, values)
            results += [
                {
                    "from_name": tag,
                    "type": "polygon" if "points" in value else None,
                    "original_width": value.get("original_width"),
                    "original_height": value.get("original_height"),
                    "value": value,
                }
                for value in regions
            ]
        annotations.append({"id": record.get("annotation_id"), "result": results})
    return {"id": task_id, "data": data, "annotations": annotations}


def _tasks(records: Iterable[Any]) -> Iterator[dict[str, Any]]:
    known = (record for record in records if isinstance(record, dict))
    # The annotations of a task follow one another.
    for _, same in groupby(known, key=lambda record: str(plain_id(record.get("id")))):
        yield _task(same)


def _entries(document: Any, context: ReadContext) -> list[Any]:
    records = [document] if isinstance(document, dict) else list_of(document, "Label Studio's JSON-MIN, a list")
    return entries_of_task(chosen_task(list(_tasks(records)), context), context)


def _images(path: Path, _: Orphans) -> Iterator[ImageMasks]:
    return map(masks_of_task, _tasks(items(path, "item")))


FORMAT = Format(
    name="label-studio-min",
    scope="dataset",
    description="JSON-MIN export of Label Studio: brushes and polygons, flat",
    kinds=("json",),
    recognises=_recognises,
    entries=_entries,
    images=_images,
)
