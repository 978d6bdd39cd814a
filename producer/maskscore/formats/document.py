"""What a masks document may turn out to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from maskscore.errors import InvalidDocumentError
from maskscore.job import Mask

__all__ = ["ImageMasks", "MasksDocumentError", "Size", "UnreadableMask"]

Size = tuple[int, int]
"""``(height, width)`` in pixels."""


class MasksDocumentError(InvalidDocumentError):
    """The whole document cannot be used: damaged, of no known layout, too large, or without this image."""

    code = "masks_invalid"


@dataclass(frozen=True, slots=True)
class UnreadableMask:
    """An entry that is no mask. It costs its own score and not its neighbours'."""

    id: str
    message: str
    upstream: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageMasks:
    """The masks of one image of a dataset.

    ``image`` is the image as the file names it: a relative path, a file name, a URL, or its id as text where it has no
    name. ``image_id`` is the id where there is one, ``size`` ``(height, width)`` where the file says so.
    """

    image: str
    masks: list[Mask | UnreadableMask]
    image_id: int | str | None = None
    size: Size | None = None
