"""What is said of a format: its name, what one of its files holds, and the functions that know and read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from maskscore.formats.outcomes import ImageMasks, Size
from maskscore.formats.read_context import ReadContext

__all__ = ["Format", "Kind", "Layout", "Scope", "Stated"]

Scope = Literal["image", "dataset", "folder"]
Kind = Literal["json", "png", "picture", "npz", "npy", "xml", "numbers", "lines"]
"""What a file is by its first bytes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which a tool keeps masks.

    ``scope`` says what one of it holds: ``image``, a file with the masks of one image; ``dataset``, a file with those
    of many images (which ``read_masks`` reads, too, when it is told which image); ``folder``, a folder with a file per
    mask.
    """

    name: str
    scope: Scope
    description: str


class Stated(NamedTuple):
    """What a document of one image says of that image: its name or path, and its ``(height, width)``."""

    name: str | None = None
    size: Size | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """A format in a module of its own: of JSON documents, of lines of text, or of folders (``kind``).

    Parameters
    ----------
    layout: its name, its scope, and what it is.
    recognises: whether a parsed document is of this format. Of a large file it is given the document with the first
        member of each of its lists alone. Of text it is given the first few kilobytes, of folders
        the path.
    entries: a parsed document (of text: the bytes) and the wanted image → that image's entries, as
        :func:`~maskscore.formats.masks_from_entries.masks_of` takes them. Raises
        :class:`~maskscore.formats.MasksDocumentError`.
    images: a dataset file → the masks of each of its images, one image in memory at a time.
    stated: what a document of one image says of it, for files that hold several such documents.
    """

    layout: Layout
    recognises: Callable[[Any], bool]
    entries: Callable[[Any, ReadContext], list[Any]]
    images: Callable[[Path], Iterator[ImageMasks]] | None = None
    stated: Callable[[Any], Stated] | None = None
    kind: Literal["json", "lines", "folder"] = "json"

    @property
    def name(self) -> str:
        """The name that ``--format`` takes."""
        return self.layout.name
