"""The categories of a dataset file, kept with the batch that was made of it, so that an export can name them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from maskscore.client.batch import Batch
from maskscore.errors import InvalidDocumentError
from maskscore.parts import CATEGORIES_FILE
from maskscore.schema import plain_id
from maskscore.storage import Objects

__all__ = [
    "copy_categories",
    "copy_categories_of_parts",
    "load_categories",
    "merge_categories",
    "save_categories",
    "save_categories_of_parts",
]

_NOTE: Final = "categories"
_FIELDS: Final = ("id", "name", "supercategory", "isthing", "color")
_MOST_BYTES: Final = 64 << 20


def save_categories(batch: Batch, categories: Iterable[Any]) -> None:
    """Keep COCO's category entries: their ids, names and what else is short (LVIS has a paragraph on each).

    What is kept already stays. Raises :class:`~maskscore.errors.ServiceUnavailable`.
    """
    known = load_categories(batch) or []
    if added := _added(known, categories):
        batch.set_note(_NOTE, json.dumps([*known, *added]))


def save_categories_of_parts(objects: Objects, output_uri: str, categories: Iterable[Any]) -> None:
    """Keep such entries beside the parts below a URI, as :func:`save_categories` keeps them with a batch.

    Raises :class:`~maskscore.errors.JobError` as :meth:`maskscore.storage.Objects.write` does.
    """
    listed, uri = list(categories), f"{output_uri}{CATEGORIES_FILE}"
    if not listed:
        return
    known = _kept(objects, uri)
    if added := _added(known, listed):
        objects.write(uri, json.dumps([*known, *added]).encode(), content_type="application/json")


def copy_categories_of_parts(objects: Objects, sources: Iterable[str], output_uri: str) -> None:
    """Keep beside parts what is kept beside those that they are made of; raises as :func:`save_categories_of_parts`."""
    for source in sources:
        save_categories_of_parts(objects, output_uri, _kept(objects, f"{source}{CATEGORIES_FILE}"))


def _kept(objects: Objects, uri: str) -> list[dict[str, Any]]:
    if not objects.exists(uri, what="result"):
        return []
    found: list[dict[str, Any]] = json.loads(objects.read(uri, what="result", max_bytes=_MOST_BYTES).data)
    return found


def _added(known: Iterable[dict[str, Any]], categories: Iterable[Any]) -> list[dict[str, Any]]:
    found = [
        {**{name: entry[name] for name in _FIELDS if name in entry}, "id": plain_id(entry["id"])}
        for entry in categories
        if isinstance(entry, dict) and isinstance(plain_id(entry.get("id")), int)
    ]
    seen = {json.dumps(entry, sort_keys=True) for entry in known}
    return [entry for entry in found if json.dumps(entry, sort_keys=True) not in seen]


def load_categories(batch: Batch) -> list[dict[str, Any]] | None:
    """Return the entries that were kept; ``None`` where none were. Raises as :func:`save_categories` does."""
    note = batch.note(_NOTE)
    return None if note is None else json.loads(note)


def copy_categories(sources: Iterable[Batch], batch: Batch) -> None:
    """Keep with a batch what is kept with the batches that its jobs were made of. Raises as :func:`save_categories`."""
    for source in sources:
        save_categories(batch, load_categories(source) or [])


def merge_categories(*lists: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the entries of several files by their ids, of equal ones the last.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where an id has another name in one than in another: masks of
    the one would get the name of the other.
    """
    joined: dict[int, dict[str, Any]] = {}
    for entry in (entry for entries in lists for entry in entries):
        number = plain_id(entry.get("id"))
        if not isinstance(number, int):
            continue
        known = joined.get(number, entry)
        if known.get("name") != entry.get("name"):
            raise InvalidDocumentError(
                f"The masks are of files with different categories: {number} is {known.get('name')!r:.60} in one and "
                f"{entry.get('name')!r:.60} in another. Export the batches, or the jobs of each file, one by one."
            )
        joined[number] = entry
    return joined
