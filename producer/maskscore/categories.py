"""The categories of a dataset file, kept with the batch that was made of it, so that an export can name them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from maskscore.batch import Batch

__all__ = ["keep_categories", "kept_categories"]

_NOTE: Final = "categories"
_FIELDS: Final = ("id", "name", "supercategory", "isthing", "color")


def keep_categories(batch: Batch, categories: Iterable[Any]) -> None:
    """Keep COCO's category entries: their ids, names and what else is short (LVIS has a paragraph on each).

    Raises :class:`~maskscore.errors.ServiceUnavailable`.
    """
    entries = [
        {name: entry[name] for name in _FIELDS if name in entry}
        for entry in categories
        if isinstance(entry, dict) and isinstance(entry.get("id"), int)
    ]
    batch.set_note(_NOTE, json.dumps(entries))


def kept_categories(batch: Batch) -> list[dict[str, Any]] | None:
    """Return the entries that were kept; ``None`` where none were. Raises as :func:`keep_categories` does."""
    note = batch.note(_NOTE)
    return None if note is None else json.loads(note)
