"""JSON layouts of masks: maskscore's own, SAM's, SA-1B's and COCO's.

SA-1B: https://github.com/facebookresearch/segment-anything (dataset section); COCO: https://cocodataset.org (data
format). All keep a mask in ``segmentation`` and its id, where it has one, in ``id``.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from maskscore.document import MOST_LEVELS, deeper, explain
from maskscore.formats.document import MasksDocumentError, UnreadableMask
from maskscore.job import Mask

__all__ = ["read_masks"]


def read_masks(
    data: bytes,
    *,
    image_name: str | None = None,
    image_id: int | str | None = None,
    check_count: Callable[[int], object] | None = None,
) -> list[Mask | UnreadableMask]:
    """Read the masks of one image, in the order of the file.

    ``image_name`` (a file name without folders) and ``image_id`` find the image in a COCO file of many. Every field
    but ``id`` and ``segmentation`` is kept for ``upstream``; a number in it that is not finite becomes ``None``, since
    a result must be JSON. ``check_count`` is called with the number of entries before they are read, and may raise.

    An id is a text or an integer, which is read as its text. A mask without one (no ``id``, or ``null``) is called by
    its position. An entry that is no mask becomes an :class:`~maskscore.formats.UnreadableMask`, and so does what has
    an id that is taken: of masks with equal ids the first is read, and one that is only called by its position gives
    way to one that has this id of its own. No entry costs its neighbours anything.

    Raises :class:`~maskscore.formats.MasksDocumentError`.
    """
    try:
        document = from_json(data.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise MasksDocumentError(f"The masks are not JSON: {error}.") from error
    entries = _entries(document, image_name, image_id)
    if check_count is not None:
        check_count(len(entries))
    masks = [_mask(entry, index) for index, entry in enumerate(entries)]
    named = [isinstance(entry, dict) and entry.get("id") is not None for entry in entries]
    return _unique(masks, named)


def _entries(document: Any, image_name: str | None, image_id: int | str | None) -> list[Any]:
    if isinstance(document, list):
        return document
    if isinstance(document, dict):
        if isinstance(document.get("masks"), list):
            return list(document["masks"])
        annotations = document.get("annotations")
        if isinstance(annotations, list) and isinstance(document.get("images"), list):
            chosen = _coco_image(document["images"], image_name, image_id)
            return [entry for entry in annotations if isinstance(entry, dict) and entry.get("image_id") == chosen]
        if isinstance(annotations, list) and isinstance(document.get("image"), dict):
            return annotations
    raise MasksDocumentError(
        "The masks have no known layout. Known are a list of masks, an object with `masks`, SA-1B's (`image` and "
        "`annotations`) and COCO's (`images` and `annotations`)."
    )


def _coco_image(images: list[Any], image_name: str | None, image_id: int | str | None) -> Any:
    known = [image for image in images if isinstance(image, dict) and "id" in image]
    if image_id is not None:
        found = [image["id"] for image in known if str(image["id"]) == str(image_id)]
        sought = f"the id {image_id!r:.60}"
    elif len(known) == 1:
        return known[0]["id"]
    else:
        found = [image["id"] for image in known if _base_name(image.get("file_name")) == image_name]
        sought = f"the file name {image_name!r:.200}"
    if len(found) != 1:
        raise MasksDocumentError(
            f"The COCO file has {len(found) or 'no'} images with {sought}, of {len(known)}. Give `image_id` beside the "
            "masks' URI."
        )
    return found[0]


def _base_name(file_name: object) -> str | None:
    return file_name.rsplit("/", 1)[-1] if isinstance(file_name, str) else None


def _mask(entry: Any, index: int) -> Mask | UnreadableMask:
    if not isinstance(entry, dict):
        return UnreadableMask(str(index), f"Entry {index} is not an object with `segmentation`.")
    given = entry.get("id")
    is_id = isinstance(given, int | str) and not isinstance(given, bool)
    mask_id = str(given) if is_id else str(index)
    fields = {name: value for name, value in entry.items() if name not in ("id", "segmentation")}
    if any(deeper(value, MOST_LEVELS) for value in fields.values()):
        return UnreadableMask(mask_id, f"Entry {index} has a field that is nested more than {MOST_LEVELS} levels deep.")
    upstream = {name: _finite(value) for name, value in fields.items()}
    if given is not None and not is_id:
        message = f"Entry {index} has an id that is neither a text nor an integer but of the type {_kind(given)}."
        return UnreadableMask(mask_id, message, upstream)
    try:
        return Mask.model_validate({"id": mask_id, "segmentation": entry.get("segmentation"), **upstream})
    except ValidationError as error:
        return UnreadableMask(mask_id, f"The mask does not fit: {explain(error)}.", upstream)


def _kind(value: object) -> str:
    return {bool: "boolean", float: "number", list: "list", dict: "object"}.get(type(value), type(value).__name__)


def _unique(masks: list[Mask | UnreadableMask], named: list[bool]) -> list[Mask | UnreadableMask]:
    """Return the masks with each id once: masks with ids of their own choose first, then those by position."""
    holders: dict[str, int] = {}
    for index in sorted(range(len(masks)), key=lambda index: not named[index]):
        if isinstance(masks[index], Mask):
            holders.setdefault(masks[index].id, index)
    return [
        _taken(mask, index, holders[mask.id], named[index])
        if isinstance(mask, Mask) and holders[mask.id] != index
        else mask
        for index, mask in enumerate(masks)
    ]


def _taken(mask: Mask, index: int, holder: int, named: bool) -> UnreadableMask:
    what = f"has the id {mask.id!r:.60}" if named else f"has no id, and its position {index} is an id"
    message = f"Entry {index} {what} that entry {holder} has, too; ids must be unique within an image."
    return UnreadableMask(mask.id, message, mask.upstream)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return value
