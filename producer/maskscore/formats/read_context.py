"""What a reader of one image's masks is told beside the bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from maskscore.formats.image_masks import MasksDocumentError, Orphans, Size
from maskscore.formats.image_names import Likeness, best, likeness
from maskscore.schema import id_key

__all__ = ["MOST_PIXELS", "ReadContext"]

MOST_PIXELS = 100_000_000
"""Largest mask that is unpacked, in pixels, unless the caller says otherwise."""

# A few bytes may unpack to a mask of MOST_PIXELS, and a file has room for thousands of them.
_MOST_PIXELS_TOGETHER = 1 << 32
# Of outlines that are drawn here, a step costs about a microsecond, and a corner may lie anywhere.
_MOST_STEPS_TOGETHER = 20_000_000


@dataclass(slots=True)
class ReadContext:
    """The image whose masks are wanted, and the limits.

    ``name`` (its path or file name) and ``id`` find it in a file of many images; ``size`` is its
    ``(height, width)`` where it is known. ``check_count`` is called with the number of entries before they are read,
    and may raise. No mask of more than ``max_pixels`` is unpacked; ``unpacked`` counts the pixels of all that were,
    ``steps`` those of the outlines that were drawn. A reader sets ``polygon_size`` to the ``(height, width)`` that its
    polygons are in pixels of, where the file says so, and adds to ``orphans`` what belongs to no image of the file, and
    to ``doubts`` a sentence where the masks may mean something else than was read, such as where ``format_is_guessed``
    from the content.
    """

    name: str | None = None
    id: int | str | None = None
    size: Size | None = None
    check_count: Callable[[int], object] | None = None
    max_pixels: int = MOST_PIXELS
    unpacked: int = 0
    steps: float = 0
    polygon_size: Size | None = None
    format_is_guessed: bool = False
    orphans: Orphans = field(default_factory=Orphans)
    doubts: list[str] = field(default_factory=list)

    def counted(self, count: int) -> None:
        """Let the caller refuse so many entries."""
        if self.check_count is not None:
            self.check_count(count)

    def needed_size(self, why: str) -> Size:
        """Return the image's size, for polygons that are turned into pixels of it.

        Raises :class:`MasksDocumentError` where it is not known.
        """
        if self.size is None:
            raise MasksDocumentError(
                f"{why}, so the image's height and width must be known: give `size`, or let a worker read it."
            )
        self.polygon_size = self.size
        return self.size

    def check_pixels(self, height: int, width: int) -> None:
        """Raise :class:`MasksDocumentError` for a mask of more pixels than are unpacked."""
        if height * width > self.max_pixels:
            raise MasksDocumentError(
                f"The masks are of {width:,} x {height:,} pixels; at most {self.max_pixels:,} are unpacked."
            )

    def unpack(self, pixels: int) -> None:
        """Count pixels that will be unpacked. Raises :class:`MasksDocumentError` where they are too many together."""
        if self.unpacked + pixels > _MOST_PIXELS_TOGETHER:
            raise MasksDocumentError(f"The masks have more than {_MOST_PIXELS_TOGETHER:,} pixels together.")
        self.unpacked += pixels

    def outline(self, steps: float) -> None:
        """Count steps of outlines to draw. Raises :class:`MasksDocumentError` where they are too many together."""
        if not self.steps + steps <= _MOST_STEPS_TOGETHER:
            raise MasksDocumentError("The outlines are too long together, or have corners that are not finite.")
        self.steps += steps

    def likeness(self, name: object) -> Likeness | None:
        """Say how a path or URL in the file means this image; ``None`` where it does not."""
        return None if self.name is None else likeness(name, self.name)

    def called(self, names: Iterable[object]) -> list[int]:
        """Return the positions of those names that mean this image best: one where it is clear."""
        return best(self.likeness(name) for name in names)

    @property
    def file_name(self) -> str | None:
        """The image's name without folders."""
        return None if self.name is None else self.name.rsplit("/", 1)[-1]

    def has_id(self, value: object) -> bool:
        """Say whether an id in the file is this image's; ids that are equal as numbers are equal."""
        key = id_key(value)
        return key is not None and key == id_key(self.id)

    @property
    def words(self) -> str:
        """The image, for a sentence."""
        return f"the id {self.id!r:.60}" if self.id is not None else f"the file name {self.name!r:.200}"
