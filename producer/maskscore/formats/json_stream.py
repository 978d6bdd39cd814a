"""JSON files larger than memory: read once, piece by piece, and grouped by image on the disk."""

from __future__ import annotations

import codecs
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import ijson
from pydantic_core import from_json, to_json

from maskscore.formats.document import MasksDocumentError

__all__ = ["Grouped", "items", "members", "sketch"]


def members(path: Path, prefix: str) -> Generator[tuple[str, Any], None, None]:
    """Yield the names and values of the object at ijson's ``prefix`` (empty: the outermost), one at a time.

    Raises as :func:`items` does.
    """
    with _opened(path) as file, _reading(path):
        yield from ijson.kvitems(file, prefix, use_float=True)


def items(path: Path, prefix: str) -> Generator[Any, None, None]:
    """Yield the values at ijson's ``prefix`` (``item``, ``annotations.item``), one at a time.

    Raises :class:`~maskscore.formats.MasksDocumentError` where the file is not JSON.
    """
    with _opened(path) as file, _reading(path):
        yield from ijson.items(file, prefix, use_float=True)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (ijson.JSONError, UnicodeDecodeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MasksDocumentError(f"{path} is not JSON that can be read: {reason}") from error


def sketch(path: Path) -> Any:
    """Return the document with the first element of its lists alone: enough to see the layout of a large file."""
    with _opened(path) as file:
        is_list = file.read(64).lstrip().startswith(b"[")
    if is_list:
        return _first(path, "item")
    return {name: first for name in ("images", "annotations") if (first := _first(path, f"{name}.item"))}


def _first(path: Path, prefix: str) -> list[Any]:
    with closing(items(path, prefix)) as values:
        return [value for value, _ in zip(values, range(1), strict=False)]


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        yield file


class Grouped:
    """Annotations by image, in a database of SQLite's own temporary kind.

    It has no name, spills to the disk what is more than a few megabytes, and is gone when it is closed or the process
    ends, however it ends (https://sqlite.org/inmemorydb.html, "temporary databases").
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;"
            "CREATE TABLE image (document BLOB); CREATE TABLE annotation (image TEXT, document BLOB); BEGIN"
        )

    def close(self) -> None:
        """Remove it all."""
        self._database.close()

    def add_images(self, images: Iterable[Any]) -> None:
        """Add the objects that describe the images."""
        self._database.executemany("INSERT INTO image VALUES (?)", ((_packed(image),) for image in images))

    def add_annotations(self, annotations: Iterable[Any]) -> None:
        """Add objects with ``image_id``; others are of no image, and left out."""
        self._database.executemany(
            "INSERT INTO annotation VALUES (?, ?)",
            (
                (_key(annotation["image_id"]), _packed(annotation))
                for annotation in annotations
                if isinstance(annotation, dict) and "image_id" in annotation
            ),
        )
        self._database.execute("CREATE INDEX annotations_of ON annotation (image)")

    def images(self) -> Iterator[Any]:
        """Yield the images in the order in which they were added."""
        for (document,) in self._database.execute("SELECT document FROM image ORDER BY rowid"):
            yield from_json(document)

    def annotated(self) -> Iterator[Any]:
        """Yield the first annotation of each image, in the order in which the images first occur."""
        query = "SELECT document FROM annotation WHERE rowid IN (SELECT min(rowid) FROM annotation GROUP BY image)"
        for (document,) in self._database.execute(f"{query} ORDER BY rowid"):
            yield from_json(document)

    def annotations(self, image_id: Any) -> list[Any]:
        """Return the annotations of one image, in the order of the file."""
        query = "SELECT document FROM annotation WHERE image = ? ORDER BY rowid"
        return [from_json(document) for (document,) in self._database.execute(query, (_key(image_id),))]


def _key(image_id: Any) -> str:
    return str(image_id) if isinstance(image_id, int | str) else ""


def _packed(value: Any) -> bytes:
    try:
        return to_json(value)
    except (ValueError, RecursionError):  # nested without end: what is left says which image it is of
        fields = value if isinstance(value, dict) else {}
        return to_json({name: fields[name] for name in ("id", "image_id") if isinstance(fields.get(name), int | str)})
