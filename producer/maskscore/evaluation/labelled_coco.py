"""Reads images with labelled masks from COCO's JSON.

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
from maskscore.formats import Orphans, id_of
from maskscore.schema import Mask, explain, id_key, plain_id

__all__ = ["Kind", "LabelledImage", "LabelledMask", "read_coco"]

Kind = Literal["object", "background", "fragment", "crowd"]
_REASONS = 3


@dataclass(frozen=True, slots=True)
class LabelledMask:
    """A mask and its true kind; ``crowd`` is of many objects at once, and is neither scored nor sampled from.

    ``mask_id`` and ``part`` are those that a result has of it; both are empty for what was sampled.
    """

    kind: Kind
    category: str
    mask: Mask
    mask_id: str = ""
    part: int | None = None


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image of the file; ``unusable`` counts annotations that cannot be used, ``reasons`` says why."""

    id: str
    file_name: str
    width: int
    height: int
    masks: tuple[LabelledMask, ...]
    unusable: int = 0
    reasons: tuple[str, ...] = ()

    def of_kind(self, kind: Kind) -> list[LabelledMask]:
        """Return the masks of a kind, in the file's order."""
        return [labelled for labelled in self.masks if labelled.kind == kind]


def read_coco(
    path: Path,
    *,
    negatives: Collection[str] = (),
    limit: int | None = None,
    crowds: Literal["ignore", "objects"] = "ignore",
    orphans: Orphans | None = None,
) -> list[LabelledImage]:
    """Read the images that have masks, in the file's order, ``limit`` of them at most.

    Categories in ``negatives``, and those with ``isthing`` 0, are background; ``iscrowd`` makes a crowd, unless
    ``crowds`` says that such annotations are objects. Ids are equal where they are equal as numbers (1, 1.0, ``"1"``).
    ``orphans`` counts the annotations of images that the file does not list.

    Raises :class:`~maskscore.errors.InvalidDocumentError` for another layout, for a negative category that the file
    has not, and where no annotation is of an object: it says what they are instead.
    """
    document = _document(path)
    try:
        categories = {id_key(entry["id"]): entry for entry in document["categories"]}
        unknown = sorted(set(negatives) - {str(entry["name"]) for entry in categories.values()})
        if unknown:
            raise InvalidDocumentError(f"{path} has no category {unknown[0]!r:.60}, which --negatives names.")
        by_image: dict[str | None, list[Any]] = defaultdict(list)
        for annotation in document["annotations"]:
            by_image[id_key(annotation.get("image_id"))].append(annotation)
        images: list[LabelledImage] = []
        for entry in document["images"]:
            annotations = by_image.pop(id_key(entry["id"]), None)
            if annotations and (limit is None or len(images) < limit):
                images.append(_image(entry, annotations, categories, negatives, crowds))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidDocumentError(
            f"{path} is not a COCO file of instances (`images`, `annotations`, `categories`): {error!r:.200}."
        ) from error
    for image_id, annotations in by_image.items():
        if orphans is not None:
            orphans.add(image_id, len(annotations))
    _check_objects(path, images)
    return images


def _check_objects(path: Path, images: list[LabelledImage]) -> None:
    if not images or any(image.of_kind("object") for image in images):
        return
    crowds, backgrounds = (sum(len(image.of_kind(kind)) for image in images) for kind in ("crowd", "background"))
    said = []
    if crowds:
        said.append(
            f"{crowds:,} are crowds (`iscrowd`), of many objects at once; CVAT writes so of every mask: if each is one "
            "object, give --crowds objects"
        )
    if backgrounds:
        said.append(f"{backgrounds:,} are background (--negatives, or `isthing` 0)")
    if unusable := sum(image.unusable for image in images):
        first = next(reason for image in images for reason in image.reasons)
        said.append(f"{unusable:,} cannot be used ({first})")
    raise InvalidDocumentError(f"{path} has no object to measure. Of its annotations, {'; '.join(said)}.")


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InvalidDocumentError(f"There is no file {path}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidDocumentError(f"{path} cannot be read as JSON: {error}") from error


def _image(
    entry: Any,
    annotations: list[Any],
    categories: dict[str | None, Any],
    negatives: Collection[str],
    crowds: Literal["ignore", "objects"],
) -> LabelledImage:
    masks: list[LabelledMask] = []
    reasons: list[str] = []
    for number, annotation in enumerate(annotations):
        which = f"annotation {annotation.get('id', number)!r:.60} of image {entry['id']!r:.60}"
        category = categories.get(id_key(annotation.get("category_id")))
        if category is None:
            reasons.append(f"{which}: its category {annotation.get('category_id')!r:.60} is not in `categories`")
            continue
        name = str(category["name"])
        kind: Kind = "object"
        if annotation.get("iscrowd") and crowds == "ignore":
            kind = "crowd"
        elif name in negatives or category.get("isthing", 1) == 0:
            kind = "background"
        try:
            mask = Mask.model_validate({"id": str(number), "segmentation": annotation.get("segmentation")})
        except ValidationError as error:
            reasons.append(f"{which}: {explain(error, limit=1)}")
            continue
        part = plain_id(annotation.get("part"))
        mask_id = id_of(annotation.get("mask_id", annotation.get("id")), number)
        masks.append(LabelledMask(kind, name, mask, mask_id, part if isinstance(part, int) else None))
    return LabelledImage(
        str(entry["id"]),
        str(entry["file_name"]),
        int(entry["width"]),
        int(entry["height"]),
        tuple(masks),
        len(reasons),
        tuple(reasons[:_REASONS]),
    )
