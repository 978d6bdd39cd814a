"""Label Studio's JSON export: tasks whose results are brushes and polygons.

Source: https://labelstud.io/guide/task_format, https://labelstud.io/tags/brushlabels and
https://labelstud.io/tags/polygonlabels (polygons are in percent of the image's sides).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from maskscore.formats.format import Format
from maskscore.formats.image_masks import ImageMasks, MasksDocumentError, Orphans, Size, UnreadableMask
from maskscore.formats.json_stream import items
from maskscore.formats.json_values import flat_points, list_of, size_of
from maskscore.formats.masks_from_entries import id_of, masks_of, unread_box
from maskscore.formats.read_context import ReadContext
from maskscore.schema import plain_id

__all__ = ["FORMAT", "chosen_task", "entries_of_task", "masks_of_task"]

# The first of these that has any is read.
_SOURCES = ("annotations", "completions", "predictions")
_LABELS = ("brushlabels", "polygonlabels", "rectanglelabels", "labels")


def _recognises(document: Any) -> bool:
    task = document[0] if isinstance(document, list) and document else document
    return (
        isinstance(task, dict)
        and isinstance(task.get("data"), dict)
        and any(isinstance(task.get(name), list) for name in _SOURCES)
    )


def _entries(document: Any, context: ReadContext) -> list[Any]:
    tasks = [document] if isinstance(document, dict) else list_of(document, "Label Studio's, a list of tasks")
    return entries_of_task(chosen_task([task for task in tasks if isinstance(task, dict)], context), context)


def _images(path: Path, _: Orphans) -> Iterator[ImageMasks]:
    return (masks_of_task(task) for task in items(path, "item") if isinstance(task, dict))


def chosen_task(tasks: list[dict[str, Any]], context: ReadContext) -> dict[str, Any]:
    """Return the task of the wanted image. Raises :class:`~maskscore.formats.MasksDocumentError` unless it is one."""
    if context.id is not None:
        found = [task for task in tasks if context.has_id(task.get("id"))]
    elif len(tasks) == 1:
        found = tasks
    else:
        found = [tasks[position] for position in context.called(map(_task_image, tasks))]
    if len(found) != 1:
        raise MasksDocumentError(
            f"The export has {len(found) or 'no'} tasks with {context.words}, of {len(tasks)}. Give the task's id as "
            "`image_id` beside the masks' URI."
        )
    return found[0]


def masks_of_task(task: dict[str, Any]) -> ImageMasks:
    """Return the masks of a task's image."""
    task_id, size = task.get("id"), _task_size(task)
    known_id = task_id if isinstance(task_id, str) else plain_id(task_id)
    name = _task_image(task) or str(known_id)
    return ImageMasks(name, masks_of(entries_of_task(task, ReadContext()), size), known_id, size)


def _task_image(task: dict[str, Any]) -> str | None:
    """Return the path or URL of the task's image: the value of ``data`` that a result names, or the only likely one.

    A file of a local storage (``/data/local-files/?d=a/b.jpg``) is called by the path in it.
    """
    data = task.get("data")
    if not isinstance(data, dict):
        return None
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    value = texts.get("image") or texts.get("img") or next(iter(texts.values()), None)
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        local = parse_qs(parts.query).get("d") if parts.path.rstrip("/").endswith("local-files") else None
    except ValueError:
        return value
    return local[0] if local else value


def _task_size(task: dict[str, Any]) -> Size | None:
    """Return ``(height, width)`` of the image as the first result states it."""
    return next((size for _, result in _results(task) if (size := _size(result)) is not None), None)


def entries_of_task(task: dict[str, Any], context: ReadContext) -> list[Any]:
    """Return an entry per brush and polygon of the task's annotations; of its predictions where there are none.

    Annotations that were skipped (``was_cancelled``) are left out, and so are points and choices. With several
    annotations, a mask's id is the annotation's and the result's with a colon between them. Boxes are left out where
    there are masks; where there are only boxes, each is an :class:`~maskscore.formats.UnreadableMask`.
    """
    listed = _results(task)
    results = [(source, result) for source, result in listed if _is_mask(result)]
    results = results or [(source, result) for source, result in listed if _is_box(result)]
    context.counted(len(results))
    context.polygon_size = _task_size(task)
    several = len({id(source) for source, _ in results}) > 1
    return [_entry(source, result, context, index, several) for index, (source, result) in enumerate(results)]


def _results(task: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    for name in _SOURCES:
        sources = task.get(name)
        if not isinstance(sources, list):
            continue
        kept = [source for source in sources if isinstance(source, dict) and not source.get("was_cancelled")]
        if kept:
            return [
                (source, result)
                for source in kept
                for result in _listed(source.get("result"))
                if isinstance(result, dict)
            ]
    return []


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _value(result: dict[str, Any]) -> dict[str, Any]:
    value = result.get("value")
    return value if isinstance(value, dict) else {}


def _is_mask(result: dict[str, Any]) -> bool:
    value = _value(result)
    return "rle" in value or ("points" in value and "polygon" in str(result.get("type", "polygon")))


def _is_box(result: dict[str, Any]) -> bool:
    return "rectanglelabels" in _value(result) or str(result.get("type", "")).startswith("rectangle")


def _size(result: dict[str, Any]) -> Size | None:
    return size_of(result.get("original_height"), result.get("original_width"))


def _entry(source: dict[str, Any], result: dict[str, Any], context: ReadContext, index: int, several: bool) -> Any:
    value = _value(result)
    labels = next((value[name] for name in _LABELS if name in value), None)
    fields = {
        name: field
        for name, field in {
            "labels": labels,
            "from_name": result.get("from_name"),
            "score": result.get("score"),
            "image_rotation": result.get("image_rotation"),
            "annotation_id": source.get("id"),
        }.items()
        if field is not None
    }
    mask_id: Any = result.get("id")
    if several and isinstance(mask_id, int | str) and isinstance(source.get("id"), int | str):
        mask_id = f"{source['id']}:{mask_id}"
    if _is_box(result):
        return unread_box(id_of(mask_id, index), fields)
    size = _size(result)
    try:
        if size is None:
            raise ValueError("it has no `original_width` and `original_height`")
        segmentation = _brush(value["rle"], size, context) if "rle" in value else _polygon(value["points"], size)
    except ValueError as error:
        return UnreadableMask(id_of(mask_id, index), f"Result {index} cannot be read: {error}.", fields)
    return {"id": mask_id, "segmentation": segmentation, **fields}


def _polygon(points: Any, size: Size) -> list[list[float]]:
    height, width = size
    numbers = flat_points(points)
    try:
        return [[number * (height if at % 2 else width) / 100 for at, number in enumerate(numbers)]]
    except OverflowError:
        raise ValueError("its `points` have a number without bounds") from None


def _brush(rle: Any, size: Size, context: ReadContext) -> Any:
    height, width = size
    if not isinstance(rle, list):
        raise ValueError("its `rle` is not a list of bytes")
    try:
        context.check_pixels(height, width)
        context.unpack(height * width)
    except MasksDocumentError as error:
        raise ValueError(str(error).rstrip(".")) from None
    try:
        data = bytes(rle)
    except (TypeError, ValueError):
        raise ValueError("its `rle` is not a list of bytes") from None
    from maskscore.formats.label_studio_brush import decode_brush
    from maskscore.masks import encode_mask

    return encode_mask(decode_brush(data, height, width))


FORMAT = Format(
    name="label-studio",
    scope="dataset",
    description="JSON export of Label Studio: tasks with brushes and polygons",
    kinds=("json",),
    recognises=_recognises,
    entries=_entries,
    images=_images,
)
