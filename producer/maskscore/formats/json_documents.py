"""JSON documents: which layout one has, and the entries in it that are of the wanted image.

COCO and its results: https://cocodataset.org (data format, results format); LVIS: https://www.lvisdataset.org/dataset.
All keep a mask in ``segmentation`` and its id, where it has one, in ``id``. What lives in a module of its own is in
:data:`~maskscore.formats.registry.REGISTERED`.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import from_json

from maskscore.formats.format import Stated
from maskscore.formats.label_studio import entries_of_task, task_image
from maskscore.formats.outcomes import MasksDocumentError
from maskscore.formats.read_context import ReadContext
from maskscore.formats.registry import REGISTERED, recognised
from maskscore.formats.results import IMAGE_FIELDS, entries_of_image, stated_size
from maskscore.formats.ultralytics import entries_of_summary
from maskscore.schema import id_key

__all__ = ["json_entries", "layout_of_json", "parse_json"]

Entries = list[Any]
_DOCUMENTS_HAVE = {"masks", "images"}


def parse_json(data: bytes) -> Any:
    """Return the document; of JSON Lines the list of their values, and so of a single record.

    JSON in a JSON string (written twice) is read once more. Raises :class:`~maskscore.formats.MasksDocumentError`.
    """
    document = _parsed(data.removeprefix(codecs.BOM_UTF8))
    if isinstance(document, str) and document.lstrip()[:1] in ("[", "{"):
        document = _parsed(document.encode("utf-8", "surrogatepass"))
    return [document] if isinstance(document, dict) and "segmentation" in document else document


def _parsed(data: bytes) -> Any:
    try:
        return from_json(data)
    except ValueError as error:
        lines = data.splitlines()
        if len(lines) > 1 and lines[0].lstrip()[:1] in (b"{", b"["):
            return _lines(lines, error)
        raise MasksDocumentError(f"The masks are not JSON: {error}.") from error


def _lines(lines: list[bytes], whole: ValueError) -> Entries:
    values = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values.append(from_json(line))
        except ValueError as error:
            # What does not begin as JSON Lines is a document that is damaged.
            if not values:
                raise MasksDocumentError(f"The masks are not JSON: {whole}.") from error
            raise MasksDocumentError(f"The masks are not JSON Lines: line {number}: {error}.") from error
    return values


def layout_of_json(document: Any) -> str:
    """Return the name of the layout that the document, or the beginning of each of its lists, shows.

    Raises :class:`~maskscore.formats.MasksDocumentError`.
    """
    if name := recognised(document):
        return name
    if isinstance(document, list) and document and (of_each := _layout_of_documents(document[0])):
        return of_each
    if isinstance(document, list):
        first = document[0] if document and isinstance(document[0], dict) else {}
        if isinstance(first.get("data"), dict) and _tasks(first):
            return "label-studio"
        if "segments" in first or ("segmentation" not in first and {"box", "class", "confidence"} <= first.keys()):
            return "ultralytics"
        if {"image_id", "category_id", "score"} <= first.keys() or (
            "segmentation" in first and not first.keys().isdisjoint(IMAGE_FIELDS)
        ):
            return "detectron2"
        return "sam" if {"predicted_iou", "stability_score"} <= first.keys() and "id" not in first else "maskscore"
    if isinstance(document, dict):
        annotations, images = document.get("annotations"), document.get("images")
        if isinstance(document.get("masks"), list):
            return "maskscore"
        if isinstance(annotations, list) and isinstance(images, list):
            return _of_many(annotations, images)
        if isinstance(document.get("data"), dict) and _tasks(document):
            return "label-studio"
    raise MasksDocumentError(
        "The masks have no known layout. Known in JSON are a list of masks, an object with `masks`, SA-1B's (`image` "
        "and `annotations`), COCO's and LVIS's (`images` and `annotations`), COCO results (a list with `image_id` or "
        "`file_name`), Ultralytics' (a list with `segments`), Label Studio's tasks (`data` and "
        f"`annotations`), and {', '.join(REGISTERED)}."
    )


def json_entries(document: Any, layout: str, context: ReadContext) -> Entries:
    """Return the entries of the wanted image, as the layout of this name keeps them.

    Raises :class:`~maskscore.formats.MasksDocumentError` where the document has another layout or not this image.
    """
    registered = REGISTERED.get(layout)
    if _is_documents(document, layout):
        document = _document_of(document, registered.stated if registered is not None else None, context)
    if registered is None:
        return _READERS[layout](document, context)
    if registered.stated is not None:
        context.polygon_size = registered.stated(document).size
    return registered.entries(document, context)


def _is_documents(document: Any, layout: str) -> bool:
    if not isinstance(document, list) or not document or recognised(document) is not None:
        return False
    return _layout_of_documents(document[0]) == layout


def _layout_of_documents(first: Any) -> str | None:
    """Return the layout of which a list's first member is a whole document, and no entry of one."""
    if not isinstance(first, dict):
        return None
    if (name := recognised(first)) is not None:
        return None if isinstance(first.get("data"), dict) else name
    return layout_of_json(first) if _DOCUMENTS_HAVE & {key for key in first if isinstance(first[key], list)} else None


def _document_of(documents: Entries, stated: Callable[[Any], Stated] | None, context: ReadContext) -> Any:
    """Return the document of the wanted image, of several in one list (or JSON Lines)."""
    if len(documents) == 1:
        return documents[0]
    if stated is None:
        raise MasksDocumentError(
            f"The file has {len(documents)} documents, and they do not say of which image each is. Save each as a file "
            "of its own, beside its image."
        )
    found = [documents[position] for position in context.called(stated(document).name for document in documents)]
    if len(found) != 1:
        raise MasksDocumentError(
            f"The file has {len(found) or 'no'} documents of the image with {context.words}, of {len(documents)}."
        )
    return found[0]


def _tasks(task: Mapping[str, Any]) -> bool:
    return any(isinstance(task.get(name), list) for name in ("annotations", "completions", "predictions"))


def _of_many(annotations: Entries, images: Entries) -> str:
    image = images[0] if images and isinstance(images[0], dict) else {}
    annotation = annotations[0] if annotations and isinstance(annotations[0], dict) else {}
    if "segments_info" in annotation:
        return "coco-panoptic"
    return "lvis" if "file_name" not in image and "coco_url" in image else "coco"


def _own(document: Any, context: ReadContext) -> Entries:
    entries = document.get("masks") if isinstance(document, dict) else document
    return entries_of_image(_list(entries, "a list of masks, or an object with `masks`"), context)


def _coco(document: Any, context: ReadContext) -> Entries:
    fields = document if isinstance(document, dict) else {}
    annotations = _list(fields.get("annotations"), "COCO's, with `images` and `annotations`")
    images = _list(fields.get("images"), "COCO's, with `images` and `annotations`")
    known = [image for image in images if isinstance(image, dict) and id_key(image.get("id")) is not None]
    chosen = _coco_image(known, context)
    context.polygon_size = stated_size(chosen)
    listed, wanted = {id_key(image["id"]) for image in known}, id_key(chosen["id"])
    entries = []
    for entry in annotations:
        owner = id_key(entry.get("image_id")) if isinstance(entry, dict) else None
        if owner == wanted:
            entries.append(entry)
        elif owner not in listed:
            context.orphans.add(owner)
    return entries


def _coco_image(known: Entries, context: ReadContext) -> Any:
    if context.id is not None:
        found = [image for image in known if context.has_id(image["id"])]
    elif len(known) == 1:
        found = known
    else:
        named = context.called(image.get("file_name") or image.get("coco_url") for image in known)
        found = [known[position] for position in named]
    if len(found) != 1:
        raise MasksDocumentError(
            f"The COCO file has {len(found) or 'no'} images with {context.words}, of {len(known)}. Give `image_id` "
            "beside the masks' URI."
        )
    return found[0]


def _panoptic(document: Any, context: ReadContext) -> Entries:
    raise MasksDocumentError(
        "This is COCO panoptic's JSON, whose masks lie in a PNG per image. Give the PNG, or the whole dataset to "
        "`read_dataset`."
    )


def _results(document: Any, context: ReadContext) -> Entries:
    return entries_of_image(_list(document, "a list of COCO results"), context)


def _ultralytics(document: Any, context: ReadContext) -> Entries:
    return entries_of_summary(_list(document, "Ultralytics', a list"), context)


def _label_studio(document: Any, context: ReadContext) -> Entries:
    tasks = [document] if isinstance(document, dict) else _list(document, "Label Studio's, a list of tasks")
    known = [task for task in tasks if isinstance(task, dict)]
    if context.id is not None:
        found = [task for task in known if context.has_id(task.get("id"))]
    elif len(known) == 1:
        found = known
    else:
        found = [known[position] for position in context.called(map(task_image, known))]
    if len(found) != 1:
        raise MasksDocumentError(
            f"The export has {len(found) or 'no'} tasks with {context.words}, of {len(known)}. Give the task's id as "
            "`image_id` beside the masks' URI."
        )
    return entries_of_task(found[0], context)


def _list(value: Any, layout: str) -> Entries:
    if not isinstance(value, list):
        raise MasksDocumentError(f"The masks are not in the layout that was asked for: {layout}.")
    return value


_READERS: Mapping[str, Callable[[Any, ReadContext], Entries]] = {
    "maskscore": _own,
    "sam": _own,
    "coco": _coco,
    "lvis": _coco,
    "coco-panoptic": _panoptic,
    "detectron2": _results,
    "ultralytics": _ultralytics,
    "label-studio": _label_studio,
}
