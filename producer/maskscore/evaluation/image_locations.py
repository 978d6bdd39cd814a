"""The URIs of the images that a labelled file names, in a folder or below a prefix."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from maskscore.errors import InvalidDocumentError
from maskscore.formats import spellings
from maskscore.storage import Objects

__all__ = ["image_uris"]


def image_uris(images: str, names: Sequence[str], objects: Objects) -> list[str]:
    """Return the URI of each image, for a folder's path, or a URI that names a folder or prefix.

    A name is taken as it stands, or as another tool may have spelt it
    (:mod:`~maskscore.formats.image_names`), from its first folder on or from a later one; the first that is there is
    meant. What is not there keeps its name, so that its job says so. In a store, only names that may be spelt otherwise
    are asked for.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where two names mean one image, and
    :class:`~maskscore.errors.JobError` where a store cannot be asked.
    """
    remote = "://" in images
    root = Path(images)

    def is_there(path: str) -> bool:
        return objects.exists(f"{images.rstrip('/')}/{path}", what="image") if remote else (root / path).is_file()

    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in dict.fromkeys(names):
        path = name if remote and len(spellings(name)) == 1 else _found(name, is_there)
        if (other := taken.setdefault(path, name)) != name:
            raise InvalidDocumentError(
                f"{other!r:.200} and {name!r:.200} both mean {path} in {images}. Give --images a folder that has both."
            )
        found[name] = path
    return [
        f"{images.rstrip('/')}/{found[name]}" if remote else (root / found[name]).absolute().as_uri() for name in names
    ]


def _found(name: str, is_there: Callable[[str], bool]) -> str:
    return next((path for path in _paths(name) if is_there(path)), name)


def _paths(name: str) -> Iterator[str]:
    yield name
    for spelling in spellings(name):
        parts = [part for part in spelling.split("/") if part not in ("", ".")]
        if ".." in parts:
            continue
        for start in range(len(parts)):
            path = "/".join(parts[start:])
            yield from dict.fromkeys((path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))))
