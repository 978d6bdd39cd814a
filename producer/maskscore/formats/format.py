"""What a format says of itself: its name, what one of its files holds, and the functions that know and read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from maskscore.formats.content_kinds import Kind
from maskscore.formats.json_stream import Grouped
from maskscore.formats.outcomes import ImageMasks, MasksDocumentError, Orphans, Size
from maskscore.formats.read_context import ReadContext

__all__ = ["Format", "Grouping", "Scope", "Stated"]

Scope = Literal["image", "dataset", "folder"]


class Stated(NamedTuple):
    """What a document of one image says of that image: its name or path, and its ``(height, width)``."""

    name: str | None = None
    size: Size | None = None


class Grouping(NamedTuple):
    """How a dataset's file is read that has the annotations of an image in several places.

    ``fill`` adds everything to a :class:`~maskscore.formats.json_stream.Grouped` in one pass over the file. ``images``
    yields the masks of each image from it, and adds annotations that are of no image to the orphans.
    """

    fill: Callable[[Path, Grouped], None]
    images: Callable[[Path, Grouped, Orphans], Iterator[ImageMasks]]


def _every(content: Any) -> bool:
    return True


def _no_file(content: Any, context: ReadContext) -> list[Any]:
    raise MasksDocumentError("The format is one of folders, and of no file.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way in which a tool keeps masks.

    The functions are given the content of a file: of JSON the parsed document, of pictures a
    :class:`~maskscore.formats.picture_masks.Picture`, of all else the bytes. A format's module imports nothing but what
    the base install has; what needs more is imported inside its functions.

    Parameters
    ----------
    name: what ``--format`` and ``format=`` take, and what its page in ``docs/reference/formats`` is called.
    scope: what one of it holds: ``image``, a file with the masks of one image; ``dataset``, a file with those of many
        images (which ``read_masks`` reads, too, when it is told which image); ``folder``, a folder of files.
    description: what it is, for lists of formats.
    kinds: the kinds of content that its files have; none for folders.
    recognises: whether a content of these kinds is of this format; of folders it is given the path. Of a large JSON
        file it is given the document with the first member of each of its lists alone, of text the first few kilobytes.
    entries: a content and the wanted image → that image's entries, as
        :func:`~maskscore.formats.masks_from_entries.masks_of` takes them. Raises
        :class:`~maskscore.formats.MasksDocumentError`.
    images: a dataset's file or folder → the masks of each of its images, one image in memory at a time; annotations
        that are of no image are added to the orphans.
    grouping: the same for files that must be grouped by image first.
    stated: what a document of one image says of it, for files that hold several such documents.
    """

    name: str
    scope: Scope
    description: str
    kinds: tuple[Kind, ...] = field(repr=False)
    recognises: Callable[[Any], bool] = field(default=_every, repr=False)
    entries: Callable[[Any, ReadContext], list[Any]] = field(default=_no_file, repr=False)
    images: Callable[[Path, Orphans], Iterator[ImageMasks]] | None = field(default=None, repr=False)
    grouping: Grouping | None = field(default=None, repr=False)
    stated: Callable[[Any], Stated] | None = field(default=None, repr=False)
