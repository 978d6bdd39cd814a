"""Entries of a masks document, in whichever layout, → masks with ids of their own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from math import isfinite
from types import NoneType
from typing import Any, TypeVar

from pydantic import ValidationError

from maskscore.formats.image_masks import Size, UnreadableMask
from maskscore.masks import count_fitting
from maskscore.schema import MOST_LEVELS, Mask, explain, plain_id

__all__ = ["id_of", "masks_of", "unread_box", "with_polygon_size"]

AnyMask = TypeVar("AnyMask", bound=Mask | UnreadableMask)

_OWN = ("polygon_convention", "polygon_size")
_KNOWN = {"id", "segmentation", *_OWN}
_RLE = {"size", "counts"}
_PLAIN = {str, int, bool, NoneType}
_CONTAINERS = (list, dict)
_JSON = {*_PLAIN, float, *_CONTAINERS}


def id_of(given: Any, index: int) -> str:
    """Return an id as text: a text as given, an integer (also as 1.0), and the position for anything else."""
    return str(given if isinstance(given, str) else plain_id(given)) if _is_id(given) else str(index)


def unread_box(mask_id: str, fields: dict[str, Any]) -> UnreadableMask:
    """Return the entry of a box that an annotation tool has exported instead of masks."""
    return UnreadableMask(
        mask_id, "This is a box. Boxes are not masks: annotate the image with masks or polygons.", fields
    )


def masks_of(entries: Sequence[Any], polygon_size: Size | None = None) -> list[Mask | UnreadableMask]:
    """Return the mask of each entry, in their order.

    ``polygon_size`` is the ``(height, width)`` that polygons are in pixels of, where the file says so. The masks carry
    it where they fit the image turned as well as not, so that they alone do not say which is meant.

    An entry is an object with ``segmentation`` (an RLE or polygons), perhaps ``id``, and any further fields, which are
    kept for ``upstream``; a number in them that is not finite becomes ``None``, since a result must be JSON. What a
    reader could make nothing of comes as an :class:`~maskscore.formats.UnreadableMask`, and stays one, without the
    fields that no result could hold.

    An id is a text or an integer, which is read as its text. A mask without one (no ``id``, or ``null``) is called by
    its position. An entry that is no mask becomes an :class:`~maskscore.formats.UnreadableMask`, and so does what has
    an id that is taken: of masks with equal ids the first is read, and one that is only called by its position gives
    way to one that has this id of its own. No entry costs its neighbours anything.
    """
    fields = [
        {name: value for name, value in entry.items() if name not in _KNOWN} if isinstance(entry, dict) else {}
        for entry in entries
    ]
    fit = _fit_upstream(list(chain.from_iterable(map(dict.values, fields))), MOST_LEVELS)
    masks = [_mask(entry, index, own, fit) for index, (entry, own) in enumerate(zip(entries, fields, strict=True))]
    named = [isinstance(entry, dict) and entry.get("id") is not None for entry in entries]
    return with_polygon_size(_unique(masks, named), polygon_size)


def with_polygon_size(masks: list[AnyMask], size: Size | None) -> list[AnyMask]:
    """Return the masks with the ``(height, width)`` that polygons are in pixels of, where that says what they do not.

    It does where they fit an image of this size as well as the image turned.
    """
    if size is None or size[0] == size[1] or min(size) < 1:
        return masks
    silent = [
        isinstance(mask, Mask) and isinstance(mask.segmentation, list) and not mask.polygon_size for mask in masks
    ]
    if not any(silent) or count_fitting(masks, *size) != count_fitting(masks, *size[::-1]):
        return masks
    # The size is valid, so that nothing is validated again.
    return [
        mask.model_copy(update={"polygon_size": size}) if isinstance(mask, Mask) and is_silent else mask
        for mask, is_silent in zip(masks, silent, strict=True)
    ]


def _mask(entry: Any, index: int, upstream: dict[str, Any], fits: bool) -> Mask | UnreadableMask:
    if isinstance(entry, UnreadableMask):
        kept = {}
        for name, value in entry.upstream.items():
            with suppress(_TooDeepError):
                kept[name] = _for_upstream(value, MOST_LEVELS)
        return UnreadableMask(entry.id, entry.message, kept)
    if not isinstance(entry, dict):
        return UnreadableMask(str(index), f"Entry {index} is not an object with `segmentation`.")
    given = entry.get("id")
    is_id = _is_id(given)
    mask_id = id_of(given, index)
    own = {name: entry[name] for name in _OWN if name in entry}
    try:
        if not fits:
            upstream = {name: _for_upstream(value, MOST_LEVELS) for name, value in upstream.items()}
    except _TooDeepError:
        return UnreadableMask(mask_id, f"Entry {index} has a field that is nested more than {MOST_LEVELS} levels deep.")
    if given is not None and not is_id:
        message = f"Entry {index} has an id that is neither a text nor an integer but of the type {_kind(given)}."
        return UnreadableMask(mask_id, message, upstream)
    if entry.get("segmentation") is None:
        box = next((name for name in ("bbox", "box") if name in entry), None)
        what = f"has a box (`{box}`) and no `segmentation`" if box else "has no `segmentation`"
        return UnreadableMask(mask_id, f"Entry {index} {what}: it is no mask.", upstream)
    size, counts = _compressed(entry["segmentation"])
    if size is not None and not own:
        return Mask.of_compressed(mask_id, size, counts, upstream)
    try:
        return Mask.model_validate({"id": mask_id, "segmentation": entry.get("segmentation"), **own, **upstream})
    except ValidationError as error:
        return UnreadableMask(mask_id, f"The mask does not fit: {explain(error)}.", upstream)


def _compressed(segmentation: Any) -> tuple[Size | None, str]:
    """Return size and counts of an ordinary compressed RLE, of which there are millions; no size for anything else."""
    if type(segmentation) is not dict or segmentation.keys() != _RLE:
        return None, ""
    size, counts = segmentation["size"], segmentation["counts"]
    if type(size) is not list or len(size) != 2 or type(counts) is not str:
        return None, ""
    height, width = size
    if type(height) is not int or type(width) is not int or min(size) < 1:
        return None, ""
    return (height, width), counts


def _is_id(given: Any) -> bool:
    return isinstance(given, str) or plain_id(given) is not None


def _kind(value: object) -> str:
    return {bool: "boolean", float: "number", list: "list", dict: "object"}.get(type(value), type(value).__name__)


def _unique(masks: list[Mask | UnreadableMask], named: list[bool]) -> list[Mask | UnreadableMask]:
    """Return the masks with each id once: masks with ids of their own choose first, then those by position."""
    if len({mask.id for mask in masks}) == len(masks):
        return masks
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


class _TooDeepError(ValueError):
    pass


def _fit_upstream(values: list[Any], levels: int) -> bool:
    """Say whether :func:`_for_upstream` would return each of many values as it is, by a look at all of them together.

    Nearly all files are so, and there are millions of values.
    """
    kinds = set(map(type, values))
    if kinds <= _PLAIN:
        return True
    if not kinds <= _JSON or (float in kinds and not all(isfinite(value) for value in values if type(value) is float)):
        return False
    lists = [value for value in values if type(value) is list]
    objects = [value.values() for value in values if type(value) is dict]
    if not lists and not objects:
        return True
    return levels > 0 and _fit_upstream(list(chain.from_iterable([*lists, *objects])), levels - 1)


def _for_upstream(value: Any, levels: int) -> Any:
    """Return a value without numbers that are not finite. Raises _TooDeepError where it is nested deeper than that."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if not isinstance(value, _CONTAINERS):
        return value
    if not levels:
        raise _TooDeepError
    if isinstance(value, list):
        return [_for_upstream(item, levels - 1) for item in value]
    return {name: _for_upstream(item, levels - 1) for name, item in value.items()}
