"""Metadata of a masks file: the image's entry, categories and licences of COCO's JSON; the image's entry of SA-1B's."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from maskscore.formats import ReadContext
from maskscore.schema import Job, MasksRef, id_key, plain_id
from maskscore.storage import object_path

__all__ = ["FileMetadata", "image_id_of", "read_file_metadata"]

_LARGEST_ID = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """``image`` is the unchanged entry of the job's image; ``categories`` and ``licenses`` are COCO's lists."""

    image: dict[str, Any] = field(default_factory=dict)
    categories: list[dict[str, Any]] = field(default_factory=list)
    licenses: list[dict[str, Any]] = field(default_factory=list)


def read_file_metadata(job: Job, document: bytes | None) -> FileMetadata:
    """Return the metadata of a masks object; empty for inline masks and other layouts."""
    if document is None or not isinstance(job.masks, MasksRef):
        return FileMetadata()
    try:
        content = from_json(document.removeprefix(codecs.BOM_UTF8))
    except ValueError:
        return FileMetadata()
    if not isinstance(content, dict):
        return FileMetadata()
    if isinstance(content.get("image"), dict):
        return FileMetadata(image=content["image"])
    images = _entries(content.get("images"))
    wanted = job.masks.image_id
    if wanted is not None:
        found = [image for image in images if id_key(image["id"]) == id_key(wanted)]
    elif len(images) == 1:
        found = images
    else:
        named = ReadContext(object_path(job.image.uri)).called(image.get("file_name") for image in images)
        found = [images[position] for position in named]
    return FileMetadata(
        image=found[0] if len(found) == 1 else {},
        categories=_entries(content.get("categories")),
        licenses=_entries(content.get("licenses")),
    )


def image_id_of(file_metadata: FileMetadata, job: Job | None, upstream: dict[str, Any]) -> int | None:
    """Return the image's number in the upstream tool's files, where they have one."""
    asked = job.masks.image_id if job is not None and isinstance(job.masks, MasksRef) else None
    for value in (file_metadata.image.get("id"), file_metadata.image.get("image_id"), asked, upstream.get("image_id")):
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
            value = int(value)
        number = plain_id(value)
        if isinstance(number, int) and 0 <= number <= _LARGEST_ID:
            return number
    return None


def _entries(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict) and "id" in entry] if isinstance(value, list) else []
