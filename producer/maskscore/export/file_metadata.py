"""What a file of masks says beside its masks: COCO's entry of the image, its categories and licences; SA-1B's image."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from maskscore.formats import ReadContext
from maskscore.schema import Job, MasksRef, id_key, plain_id
from maskscore.storage import path_in

__all__ = ["Head", "image_id_of", "read_head"]

_LARGEST_ID = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Head:
    """``image`` is the entry of the job's image, as it was."""

    image: dict[str, Any] = field(default_factory=dict)
    categories: list[dict[str, Any]] = field(default_factory=list)
    licenses: list[dict[str, Any]] = field(default_factory=list)


def read_head(job: Job, document: bytes | None) -> Head:
    """Return what a masks object says beside the masks; nothing where the masks are inline or of other layouts."""
    if document is None or not isinstance(job.masks, MasksRef):
        return Head()
    try:
        content = from_json(document.removeprefix(codecs.BOM_UTF8))
    except ValueError:
        return Head()
    if not isinstance(content, dict):
        return Head()
    if isinstance(content.get("image"), dict):
        return Head(image=content["image"])
    images = _entries(content.get("images"))
    wanted = job.masks.image_id
    if wanted is not None:
        found = [image for image in images if id_key(image["id"]) == id_key(wanted)]
    elif len(images) == 1:
        found = images
    else:
        named = ReadContext(path_in(job.image.uri)).called(image.get("file_name") for image in images)
        found = [images[position] for position in named]
    return Head(
        image=found[0] if len(found) == 1 else {},
        categories=_entries(content.get("categories")),
        licenses=_entries(content.get("licenses")),
    )


def image_id_of(head: Head, job: Job | None, upstream: dict[str, Any]) -> int | None:
    """Return the image's number in the upstream tool's files, where they have one."""
    asked = job.masks.image_id if job is not None and isinstance(job.masks, MasksRef) else None
    for value in (head.image.get("id"), head.image.get("image_id"), asked, upstream.get("image_id")):
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
            value = int(value)
        number = plain_id(value)
        if isinstance(number, int) and 0 <= number <= _LARGEST_ID:
            return number
    return None


def _entries(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict) and "id" in entry] if isinstance(value, list) else []
