"""Masks of one image as read from a file, entries that cannot be read, and errors of the whole file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from maskscore.errors import FailureCode, InvalidDocumentError
from maskscore.schema import Mask
from maskscore.text import counted

__all__ = ["ImageMasks", "MasksDocumentError", "Orphans", "Size", "UnreadableMask"]

_NAMED = 5

Size = tuple[int, int]
"""``(height, width)`` in pixels."""


class MasksDocumentError(InvalidDocumentError):
    """The whole document cannot be used: damaged, of no known layout, too large, or without this image."""

    code = FailureCode.MASKS_INVALID


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


@dataclass(slots=True)
class Orphans:
    """Annotations of a file of many images that are of no image in it.

    ``count`` is the number of annotations; ``images`` has the first few ids of images that the file does not list, as
    text, and how many annotations each has; ``without_image`` are the annotations that name no image at all.
    """

    count: int = 0
    without_image: int = 0
    images: dict[str, int] = field(default_factory=dict)
    more_images: bool = False

    def add(self, image_id: str | None, count: int = 1) -> None:
        """Count annotations of an image that the file does not list; of none where ``image_id`` is ``None``."""
        self.count += count
        if image_id is None:
            self.without_image += count
        elif image_id in self.images or len(self.images) < _NAMED:
            self.images[image_id] = self.images.get(image_id, 0) + count
        else:
            self.more_images = True

    def __str__(self) -> str:
        """Say how many there are, and of which images."""
        some = [f"{count:,} of image {name:.60}" for name, count in self.images.items()]
        if self.more_images:
            some.append("...")
        if self.without_image:
            some.append(f"{self.without_image:,} without `image_id`")
        what = f"{counted(self.count, 'annotation')} {'is' if self.count == 1 else 'are'}"
        return f"{what} of no image that the file lists ({', '.join(some)})"
