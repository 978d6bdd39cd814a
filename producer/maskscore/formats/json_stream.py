"""JSON files larger than memory: read once, in pieces, and grouped by image on the disk."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import ijson
from pydantic_core import from_json, to_json

from maskscore.formats.containers import opened
from maskscore.formats.image_masks import MasksDocumentError, Orphans
from maskscore.formats.json_constants import StrictJson
from maskscore.schema import id_key

__all__ = ["Grouped", "items", "items_of_several", "members", "sketch"]

_HEAD_BYTES = 4096
_READ_BYTES = 1 << 16
_MOST_SCALARS = 100
_SCALARS = ("null", "boolean", "integer", "double", "number", "string")


def members(path: Path, prefix: str) -> Generator[tuple[str, Any], None, None]:
    """Yield the names and values of the object at ijson's ``prefix`` (empty: the outermost), one at a time.

    Raises as :func:`items` does.
    """
    with opened(path) as file, _reading(path):
        yield from ijson.kvitems(StrictJson(file), prefix, use_float=True)


def items(path: Path, prefix: str) -> Generator[Any, None, None]:
    """Yield the values at ijson's ``prefix`` (``item``, ``annotations.item``), one at a time.

    JSON Lines, and a single object, are read as a list is: their values are those at ``item``. Raises
    :class:`~maskscore.formats.MasksDocumentError` where the file is not JSON.
    """
    with opened(path) as file, _reading(path):
        if prefix == "item" and not _is_list(file):
            yield from ijson.items(StrictJson(file), "", use_float=True, multiple_values=True)
        else:
            yield from ijson.items(StrictJson(file), prefix, use_float=True)


def items_of_several(path: Path, prefixes: Iterable[str]) -> Generator[tuple[str, Any], None, None]:
    """Yield the values at several of ijson's prefixes, each with its prefix, in one pass over the file.

    Of one prefix they come in the order of the file. Raises as :func:`items` does.
    """
    with opened(path) as file, _reading(path):
        found: dict[str, list[Any]] = {prefix: ijson.sendable_list() for prefix in prefixes}
        parsers = [ijson.items_coro(values, prefix, use_float=True) for prefix, values in found.items()]
        strict = StrictJson(file)
        while data := strict.read(_READ_BYTES):
            for parser in parsers:
                parser.send(data)
            for prefix, values in found.items():
                yield from ((prefix, value) for value in values)
                values.clear()
        for parser in parsers:
            parser.close()


def _is_list(file: io.BufferedReader) -> bool:
    return file.peek(_HEAD_BYTES)[:_HEAD_BYTES].lstrip().startswith(b"[")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (ijson.JSONError, UnicodeDecodeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MasksDocumentError(f"{path} is not JSON that can be read: {reason}") from error


def sketch(path: Path, *, most_bytes: int | None = None) -> Any:
    """Return the document with the first member of each of its lists alone: enough to see the layout of a large file.

    Of JSON Lines, a list of the first. Where ``images`` are known after ``most_bytes``, ``annotations`` are taken for
    granted: they may begin only after a million images.
    """
    with opened(path) as file, _reading(path):
        if _is_list(file):
            return list(islice(ijson.items(StrictJson(file), "item", use_float=True), 1))
        return _skeleton(file, most_bytes)


def _skeleton(file: IO[bytes], most_bytes: int | None) -> Any:
    """Return an object with its scalars, and of each list or object in it the scalars and the first other member.

    Ends early where ``images`` and ``annotations`` are known: then nothing else decides. Where more follows after the
    object, it is the first of JSON Lines, and comes in a list.
    """
    skeleton: dict[str, Any] = {}
    place: Any = skeleton
    names: list[Any] = []
    builder: Any = None
    depth = 0
    strict = StrictJson(file)
    for _, event, value in ijson.parse(strict, use_float=True, multiple_values=True):
        if most_bytes is not None and strict.count > most_bytes and skeleton.get("images"):
            return {"annotations": [], **skeleton}
        if skeleton and depth == 0:
            return [skeleton]
        depth += event in ("start_map", "start_array")
        depth -= event in ("end_map", "end_array")
        if builder is not None:
            builder.event(event, value)
            if depth == 2:
                _put(place, names[-1], builder.value)
                builder = None
                if skeleton.get("images") and skeleton.get("annotations"):
                    break
        elif event == "map_key" and depth <= 2:
            names[depth - 1 :] = [value]
        elif event in ("start_map", "start_array") and depth == 2:
            place = skeleton[names[0]] = {} if event == "start_map" else []
            names[1:] = [None] if event == "start_array" else []
        elif event in ("start_map", "start_array") and depth == 3 and not any(map(_is_container, _values(place))):
            builder = ijson.ObjectBuilder()
            builder.event(event, value)
        elif event in _SCALARS and depth in (1, 2):
            target = skeleton if depth == 1 else place
            if len(target) < _MOST_SCALARS:
                _put(target, names[depth - 1], value)
    return skeleton


def _put(place: Any, name: Any, value: Any) -> None:
    if isinstance(place, list):
        place.append(value)
    else:
        place[name] = value


def _values(place: Any) -> Iterable[Any]:
    return place if isinstance(place, list) else place.values()


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list)


class Grouped:
    """Annotations by image, in a database of SQLite's own temporary kind. Used by one thread at a time.

    It has no name, spills to the disk what is more than a few megabytes, and is gone when it is closed or the process
    ends, however it ends (https://sqlite.org/inmemorydb.html, "temporary databases"). Everything is added first; after
    :meth:`index` it can be read several times.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;"
            "CREATE TABLE image (key TEXT, name TEXT, document BLOB);"
            "CREATE TABLE annotation (image TEXT, document BLOB);"
            "CREATE TABLE category (document BLOB); BEGIN"
        )

    def close(self) -> None:
        """Remove it all."""
        self._database.close()

    def add_image(self, image: Any) -> None:
        """Add the object that describes an image; what is no object is left out."""
        if isinstance(image, dict):
            row = id_key(image.get("id")), str(image.get("file_name")), _packed(image)
            self._database.execute("INSERT INTO image VALUES (?, ?, ?)", row)

    def add_annotation(self, annotation: Any, key: str | None) -> None:
        """Add an object that belongs to the image with this key; what is no object belongs to none."""
        row = key if isinstance(annotation, dict) else None, _packed(annotation)
        self._database.execute("INSERT INTO annotation VALUES (?, ?)", row)

    def add_category(self, category: Any) -> None:
        """Add the object that describes a category."""
        self._database.execute("INSERT INTO category VALUES (?)", (_packed(category),))

    def index(self) -> None:
        """Prepare for reading.

        Raises :class:`~maskscore.formats.MasksDocumentError` where two images of different names have the same id.
        """
        self._database.execute("CREATE INDEX images_by_key ON image (key)")
        self._database.execute("CREATE INDEX annotations_of ON annotation (image)")
        query = "SELECT key, min(name), max(name) FROM image WHERE key IS NOT NULL GROUP BY key"
        twice = self._database.execute(f"{query} HAVING min(name) < max(name) LIMIT 1").fetchone()
        if twice is not None:
            raise MasksDocumentError(
                f"The file has the image id {twice[0]:.60} twice, of {twice[1]:.200} and of {twice[2]:.200}. Which "
                "annotations are of which image cannot be known."
            )

    @property
    def has_annotations(self) -> bool:
        """Whether any annotation was added."""
        return self._database.execute("SELECT 1 FROM annotation LIMIT 1").fetchone() is not None

    def categories(self) -> Iterator[Any]:
        """Yield the categories in the order in which they were added."""
        for (document,) in self._database.execute("SELECT document FROM category ORDER BY rowid"):
            yield from_json(document)

    def images(self) -> Iterator[Any]:
        """Yield the images in the order in which they were added."""
        for (document,) in self._database.execute("SELECT document FROM image ORDER BY rowid"):
            yield from_json(document)

    def annotated(self) -> Iterator[tuple[str, Any]]:
        """Yield the key and the first annotation of each image, in the order in which the images first occur."""
        query = (
            "SELECT image, document FROM annotation WHERE rowid IN "
            "(SELECT min(rowid) FROM annotation WHERE image IS NOT NULL GROUP BY image) ORDER BY rowid"
        )
        for key, document in self._database.execute(query):
            yield key, from_json(document)

    def annotations(self, key: str | None) -> list[Any]:
        """Return the annotations of one image, in the order of the file."""
        query = "SELECT document FROM annotation WHERE image = ? ORDER BY rowid"
        return [from_json(document) for (document,) in self._database.execute(query, (key,))]

    def count_orphans(self, orphans: Orphans, *, listed: bool) -> None:
        """Count the annotations without an image, and (``listed``) those of images that were not added."""
        unknown = "image IS NULL OR image NOT IN (SELECT key FROM image WHERE key IS NOT NULL)"
        query = f"SELECT image, count(*) FROM annotation WHERE {unknown if listed else 'image IS NULL'} GROUP BY image"
        for key, count in self._database.execute(f"{query} ORDER BY min(rowid)"):
            orphans.add(key, count)


def _packed(value: Any) -> bytes:
    try:
        return to_json(value)
    except (ValueError, RecursionError):  # nested without end: what is left says which image it is of
        fields = value if isinstance(value, dict) else {}
        kept = ("id", "image_id", "file_name")
        return to_json({name: fields[name] for name in kept if isinstance(fields.get(name), int | float | str)})
