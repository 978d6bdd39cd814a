"""COCO's JSON → images with labelled masks.

The layout is COCO's (https://cocodataset.org/#format-data); ``isthing`` is that of its panoptic and stuff files.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from maskscore.errors import InvalidDocumentError
from maskscore.job import Mask

__all__ = ["Kind", "LabelledImage", "LabelledMask", "read_coco"]

Kind = Literal["object", "background", "fragment", "crowd"]


@dataclass(frozen=True, slots=True)
class LabelledMask:
    """A mask and what it really is; ``crowd`` is of many objects at once, and is neither scored nor sampled from."""

    kind: Kind
    category: str
    mask: Mask


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image of the file; ``unusable`` counts annotations whose segmentation is none."""

    id: str
    file_name: str
    width: int
    height: int
    masks: tuple[LabelledMask, ...]
    unusable: int = 0

    def of_kind(self, kind: Kind) -> list[LabelledMask]:
        """Return the masks of a kind, in the file's order."""
        return [labelled for labelled in self.masks if labelled.kind == kind]


def read_coco(path: Path, *, negatives: Collection[str] = (), limit: int | None = None) -> list[LabelledImage]:
    """Read the images that have masks, in the file's order, ``limit`` of them at most.

    Categories in ``negatives``, and those with ``isthing`` 0, are background; ``iscrowd`` makes a crowd.

    Raises :class:`~maskscore.errors.InvalidDocumentError` for another layout, and for a negative category that the file
    has not.
    """
    document = _document(path)
    try:
        categories = {entry["id"]: entry for entry in document["categories"]}
        unknown = sorted(set(negatives) - {str(entry["name"]) for entry in categories.values()})
        if unknown:
            raise InvalidDocumentError(f"{path} has no category {unknown[0]!r:.60}, which --negatives names.")
        by_image: dict[Any, list[Any]] = defaultdict(list)
        for annotation in document["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        images: list[LabelledImage] = []
        for entry in document["images"]:
            if limit is not None and len(images) >= limit:
                break
            if annotations := by_image.get(entry["id"]):
                images.append(_image(entry, annotations, categories, negatives))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidDocumentError(
            f"{path} is not a COCO file of instances (`images`, `annotations`, `categories`): {error!r:.200}."
        ) from error
    return images


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidDocumentError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:
        raise InvalidDocumentError(f"{path} cannot be read as JSON: {error}") from error


def _image(entry: Any, annotations: list[Any], categories: dict[Any, Any], negatives: Collection[str]) -> LabelledImage:
    masks: list[LabelledMask] = []
    unusable = 0
    for number, annotation in enumerate(annotations):
        category = categories[annotation["category_id"]]
        name = str(category["name"])
        kind: Kind = "object"
        if annotation.get("iscrowd"):
            kind = "crowd"
        elif name in negatives or category.get("isthing", 1) == 0:
            kind = "background"
        try:
            mask = Mask.model_validate({"id": str(number), "segmentation": annotation["segmentation"]})
        except ValidationError:
            unusable += 1
            continue
        masks.append(LabelledMask(kind, name, mask))
    return LabelledImage(
        str(entry["id"]), str(entry["file_name"]), int(entry["width"]), int(entry["height"]), tuple(masks), unusable
    )
