"""Jobs from documents in files, and one job from an image and its masks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import ValidationError

from maskscore.client import image_size
from maskscore.dataset.local_masks import LocalMasks, read_local_masks
from maskscore.errors import InvalidDocumentError, JobError
from maskscore.schema import Job, Orientation, Shard, explain, parse_job_or_shard
from maskscore.storage import object_path

__all__ = ["job_of_image", "read_jobs"]

# Files below this size may be one document of many lines.
_MOST_BYTES_OF_ONE = 1 << 26


def read_jobs(files: Iterable[str]) -> Iterator[Job | Shard]:
    """Yield the jobs and shards of files with a document each, or with one per line (JSON Lines); ``-`` is stdin.

    A file is checked to its end before its first job is yielded; stdin is read as it comes. Raises
    :class:`~maskscore.errors.InvalidDocumentError` with the file and the line.
    """
    for name in files:
        try:
            yield from _jobs_of_lines("standard input", sys.stdin) if name == "-" else _jobs_of_file(name)
        except UnicodeDecodeError as error:
            raise InvalidDocumentError(f"{name} holds no job documents: it is not text in UTF-8 ({error}).") from error
        except OSError as error:
            raise InvalidDocumentError(f"{name} cannot be read: {error.strerror or error}.") from error


def _jobs_of_file(name: str) -> Iterator[Job | Shard]:
    path = Path(name)
    if not path.is_file():
        raise InvalidDocumentError(f"There is no file {name}.")
    whole = path.read_text("utf-8") if path.stat().st_size < _MOST_BYTES_OF_ONE else ""
    if _is_one_document(whole):
        yield _job(whole, name)
        return
    # Read twice, so that a bad line at the end does not leave half of the file submitted.
    with path.open(encoding="utf-8") as lines:
        for _ in _jobs_of_lines(name, lines):
            pass
    with path.open(encoding="utf-8") as lines:
        yield from _jobs_of_lines(name, lines)


def _is_one_document(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):  # nested too deep: parsing its first line raises the error
        return False


def _jobs_of_lines(name: str, lines: Iterable[str]) -> Iterator[Job | Shard]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _job(line, f"{name}, line {number}")


def _job(text: str, place: str) -> Job | Shard:
    try:
        return parse_job_or_shard(text)
    except JobError as error:
        raise InvalidDocumentError(f"{place}: {error}") from error


def job_of_image(
    image: str, masks: str, scoring: dict[str, Any], fields: dict[str, Any], *, format: str | None = None
) -> tuple[Job, LocalMasks | None]:
    """Return the job of an image and its masks, each a URI or a path; and the masks, where they were read here.

    Masks at a path are read and go into the document. ``scoring`` has fields of
    :class:`~maskscore.schema.ScoringOptions`, ``fields`` those of the job (and ``orientation``); ``format`` is the
    layout of the masks. Raises :class:`~maskscore.errors.InvalidDocumentError` for what is not valid, and as
    :func:`~maskscore.dataset.local_masks.read_local_masks` does.
    """
    fields = dict(fields)
    orientation = fields.pop("orientation", "auto")
    image_uri = image if "://" in image else Path(image).absolute().as_uri()
    read = None if "://" in masks else _read_masks(Path(masks), image_uri, format, orientation)
    document: dict[str, Any] = {
        "image": {"uri": image_uri, "orientation": orientation},
        "masks": {"uri": masks, "format": format} if read is None else read.masks,
        "options": scoring,
        **fields,
    }
    try:
        return Job.model_validate(document), read
    except ValidationError as error:
        raise InvalidDocumentError(f"The job is not valid: {explain(error)}.") from error


def _read_masks(path: Path, image_uri: str, format: str | None, orientation: Orientation) -> LocalMasks:
    if not path.is_file():
        raise InvalidDocumentError(f"There is no masks file {path}.")

    def size() -> tuple[int, int] | None:
        parts = urlsplit(image_uri)
        return image_size(Path(url2pathname(parts.path)), orientation) if parts.scheme == "file" else None

    return read_local_masks(path.read_bytes(), str(path), image_name=object_path(image_uri), format=format, size=size)
