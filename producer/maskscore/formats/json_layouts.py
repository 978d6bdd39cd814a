"""JSON layouts of masks: maskscore's own, SAM's, SA-1B's and COCO's.

SA-1B: https://github.com/facebookresearch/segment-anything (dataset section); COCO: https://cocodataset.org (data
format). All keep a mask in ``segmentation`` and its id, where it has one, in ``id``.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from maskscore.document import explain
from maskscore.formats.document import MasksDocumentError, UnreadableMask
from maskscore.job import Mask

__all__ = ["read_masks"]


def read_masks(
    data: bytes, *, image_name: str | None = None, image_id: int | str | None = None
) -> list[Mask | UnreadableMask]:
    """Read the masks of one image, in the order of the file.

    ``image_name`` (a file name without folders) and ``image_id`` find the image in a COCO file of many. Every field
    but ``id`` and ``segmentation`` is kept for ``upstream``; a number in it that is not finite becomes ``None``, since
    a result must be JSON. A mask without an id is called by its position.

    Raises :class:`~maskscore.formats.MasksDocumentError`.
    """
    try:
        document = from_json(data)
    except ValueError as error:
        raise MasksDocumentError(f"The masks are not JSON: {error}.") from error
    masks = [_mask(entry, index) for index, entry in enumerate(_entries(document, image_name, image_id))]
    repeated = [mask_id for mask_id, count in Counter(mask.id for mask in masks).items() if count > 1]
    if repeated:
        raise MasksDocumentError(f"Mask ids must be unique within an image; given more than once: {repeated[:5]}.")
    return masks


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
        sought = f"the id {image_id!r}"
    elif len(known) == 1:
        return known[0]["id"]
    else:
        found = [image["id"] for image in known if _base_name(image.get("file_name")) == image_name]
        sought = f"the file name {image_name!r}"
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
    upstream = {name: _finite(value) for name, value in entry.items() if name not in ("id", "segmentation")}
    mask_id = entry.get("id", index)
    try:
        return Mask.model_validate({"id": mask_id, "segmentation": entry.get("segmentation"), **upstream})
    except ValidationError as error:
        return UnreadableMask(str(mask_id), f"The mask does not fit: {explain(error)}.", upstream)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return value
