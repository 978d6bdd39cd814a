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

from maskscore.formats.format import Format, Layout
from maskscore.formats.label_studio import entries_of_task, task_image, task_size
from maskscore.formats.masks_from_entries import masks_of
from maskscore.formats.outcomes import ImageMasks, MasksDocumentError
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
    records = [document] if isinstance(document, dict) else document
    if not isinstance(records, list):
        raise MasksDocumentError("The masks are not in the layout that was asked for: Label Studio's JSON-MIN, a list.")
    tasks = list(_tasks(records))
    if context.id is not None:
        found = [task for task in tasks if context.has_id(task["id"])]
    elif len(tasks) == 1:
        found = tasks
    else:
        found = [tasks[position] for position in context.called(map(task_image, tasks))]
    if len(found) != 1:
        raise MasksDocumentError(
            f"The export has {len(found) or 'no'} tasks with {context.words}, of {len(tasks)}. Give the task's id as "
            "`image_id` beside the masks' URI."
        )
    return entries_of_task(found[0], context)


def _images(path: Path) -> Iterator[ImageMasks]:
    from maskscore.formats.json_stream import items

    for task in _tasks(items(path, "item")):
        task_id = task["id"] if isinstance(task["id"], str) else plain_id(task["id"])
        name, size = task_image(task) or str(task_id), task_size(task)
        yield ImageMasks(name, masks_of(entries_of_task(task, ReadContext()), size), task_id, size)


FORMAT = Format(
    Layout("label-studio-min", "dataset", "JSON-MIN export of Label Studio: brushes and polygons, flat"),
    _recognises,
    _entries,
    _images,
)
