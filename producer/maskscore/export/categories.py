"""The categories of exported masks: their labels, or the upstream tool's categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from maskscore.client import Client, load_categories, merge_categories
from maskscore.export.mask_buffer import BufferedMask, MaskBuffer

__all__ = ["Categories", "read_categories"]

_NO_CATEGORY = "object"


@dataclass(frozen=True, slots=True)
class Categories:
    """``entries`` are COCO's categories without their ids, by id; ``ids`` are those of labels, where masks have them.

    ``fallback`` is the id of masks that have no category.
    """

    entries: dict[int, dict[str, Any]]
    fallback: int
    ids: dict[str, int] | None

    def id_of(self, mask: BufferedMask) -> int:
        """Return the id of a mask's category."""
        if self.ids is not None:
            return self.fallback if mask.label is None else self.ids[mask.label]
        return self.fallback if mask.category is None else mask.category

    def name_of(self, category: int) -> str:
        """Return a category's name; its id where the upstream file does not name it."""
        return str(self.entries[category].get("name", category))


def read_categories(client: Client, buffer: MaskBuffer) -> Categories:
    """Return the categories of the masks in a buffer.

    With labels they are numbered from 1: all classes in the order of their file or of the selection's head, or else the
    labels that masks have, in alphabetical order. Otherwise they are those of the upstream tool. Masks that have none
    are of one called ``object``, with the next number.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where the masks are of files that give one category's id
    different names.
    """
    labelling = buffer.selection.labelling
    if labelling is None:
        kept = [load_categories(client.batch(batch_id)) or [] for batch_id in sorted(buffer.batches)]
        known = merge_categories(*kept, buffer.categories)
        entries = {number: known.get(number, {"name": str(number)}) for number in buffer.category_ids()}
        ids, has_others = None, buffer.has_masks_without_category()
    else:
        names = buffer.selection.label_names or buffer.labels()
        ids = {name: number for number, name in enumerate(names, start=1)}
        entries, has_others = {number: {"name": name} for name, number in ids.items()}, buffer.has_masks_without_label()
    fallback = max(entries, default=0) + 1
    if has_others or not entries:
        entries[fallback] = {"name": _NO_CATEGORY}
    return Categories(entries, fallback, ids)
