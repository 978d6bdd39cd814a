"""Masks that are read on this machine, to go into a job's document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from maskscore.errors import NothingToScore
from maskscore.formats import Orphans, UnreadableMask, kind_of, read_masks, unwrapped
from maskscore.schema import Mask
from maskscore.text import counted

__all__ = ["LocalMasks", "read_local_masks", "usable_masks"]

# Polygons in shares of the image's sides (Ultralytics' JSON has them, too), and arrays whose axes fit it in one order.
_NEED_THE_SIZE = ("text", "npz", "npy")


@dataclass(frozen=True, slots=True)
class LocalMasks:
    """The masks of one image; a sentence for each entry that was left out, and for each doubt of the reader."""

    masks: list[Mask]
    left_out: list[str]
    doubts: list[str] = field(default_factory=list)


def read_local_masks(
    data: bytes,
    place: str,
    *,
    image_name: str,
    format: str | None,
    size: Callable[[], tuple[int, int] | None],
) -> LocalMasks:
    """Read the masks of one image from the bytes of the file ``place``.

    ``size`` returns the image's ``(height, width)``; it is called only where the masks need it. Raises
    :class:`~maskscore.formats.MasksDocumentError` for a file that cannot be read, and
    :class:`~maskscore.errors.NothingToScore` where nothing of it is a mask of this image.
    """
    data = unwrapped(data)
    orphans, doubts = Orphans(), list[str]()
    masks = read_masks(
        data,
        image_name=image_name,
        format=format,
        size=size() if kind_of(data) in _NEED_THE_SIZE or b'"segments"' in data else None,
        orphans=orphans,
        file_name=place,
        doubts=doubts,
    )
    if orphans.count and not masks:
        raise NothingToScore(f"{place}: {orphans}, so there is nothing to score.")
    found = usable_masks(masks, place)
    left_out = [*found.left_out, f"{place}: {orphans}"] if orphans.count else found.left_out
    return LocalMasks(found.masks, left_out, doubts)


def usable_masks(masks: list[Mask | UnreadableMask], place: str) -> LocalMasks:
    """Return the masks, and why each of the others is left out. Raises NothingToScore where all of them are."""
    found = [mask for mask in masks if isinstance(mask, Mask)]
    left_out = [f"mask {mask.id}: {mask.message}" for mask in masks if isinstance(mask, UnreadableMask)]
    if left_out and not found:
        what = "the only entry is" if len(left_out) == 1 else f"all {counted(len(left_out), 'entry')} are"
        raise NothingToScore(f"{place}: {what} left out, so there is nothing to score. The first: {left_out[0]}")
    return LocalMasks(found, [f"{place}: {reason}" for reason in left_out])
