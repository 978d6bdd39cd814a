"""The fields and functions of a mask format; the kinds of content; the error for a missing optional module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from maskscore.formats.image_masks import ImageMasks, MasksDocumentError, Orphans, Size
from maskscore.formats.json_stream import Grouped
from maskscore.formats.read_context import ReadContext

__all__ = ["Format", "Grouping", "Kind", "Scope", "Stated", "formats_extra", "kind_by_magic", "pillow_format"]

Kind = Literal["json", "png", "picture", "npz", "npy", "xml", "text"]
"""What a file is by its first bytes; ``picture`` is TIFF, BMP, GIF or JPEG."""

_PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    # BigTIFF.
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
)
_OTHERS: tuple[tuple[bytes, Kind], ...] = (
    (b"PK\x03\x04", "npz"),
    (b"PK\x05\x06", "npz"),
    (b"\x93NUMPY", "npy"),
)


def pillow_format(data: bytes) -> str | None:
    """Return Pillow's name of a picture's format, or ``None`` for what is read as no picture."""
    return next((name for magic, name in _PICTURES if data.startswith(magic)), None)


def kind_by_magic(data: bytes) -> Kind | None:
    """Return what a file is that begins so; ``None`` for text and whatever is not known."""
    if (picture := pillow_format(data)) is not None:
        return "png" if picture == "PNG" else "picture"
    return next((kind for magic, kind in _OTHERS if data.startswith(magic)), None)


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


_MODULES: Final = ("numpy", "PIL", "defusedxml")


@contextmanager
def formats_extra() -> Iterator[None]:
    """Turn a failed import into a :class:`~maskscore.formats.MasksDocumentError` with the line to type."""
    try:
        yield
    except ImportError as error:
        # Of two threads that import the same reader, only one is told which module is missing; the other one is handed
        # the half-made reader and told that it lacks a name.
        absent = error.name if isinstance(error, ModuleNotFoundError) else _missing()
        if absent is None:
            raise
        absent = absent.partition(".")[0]
        raise MasksDocumentError(
            f'These masks need the module {absent!r}, which is not installed: pip install "maskscore[formats]".'
        ) from error


def _missing() -> str | None:
    return next((name for name in _MODULES if find_spec(name) is None), None)
