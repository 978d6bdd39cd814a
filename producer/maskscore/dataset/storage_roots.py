"""The places of a dataset's files: a prefix of a bucket, or a local folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from maskscore.errors import FailureCode, InvalidDocumentError, JobError
from maskscore.storage import ListedObject, ObjectRole, Objects

__all__ = ["BucketRoot", "FolderRoot", "StorageRoot", "open_root"]

_MAX_BYTES = 1 << 30


class StorageRoot(Protocol):
    """A place with files below it; names are paths below it, with ``/``, whatever the system."""

    @property
    def uri(self) -> str:
        """The place as a URI that ends in ``/``."""

    @property
    def local(self) -> bool:
        """Whether it is of this machine."""

    def entries(self) -> Iterator[ListedObject]:
        """Yield the files below, a few at a time in memory; hidden ones are left out."""

    def below(self, folder: str) -> list[str]:
        """Return the names of the files in one folder below it, and not in that folder's own folders."""

    def uri_of(self, name: str) -> str:
        """Return the URI of one of them."""

    def read(self, name: str, what: ObjectRole) -> bytes:
        """Return the bytes of one of them. Raises :class:`~maskscore.errors.JobError`."""


class BucketRoot:
    """``s3://bucket/prefix/``. Its files come in the order of their keys."""

    local = False

    def __init__(self, uri: str, objects: Objects) -> None:
        self.uri = uri if uri.endswith("/") else f"{uri}/"
        self._objects = objects

    def entries(self) -> Iterator[ListedObject]:
        """Yield the objects below the prefix."""
        for entry in self._objects.list(self.uri):
            # Consoles mark a folder by an empty object with a name that ends in a slash.
            if entry.name and not entry.name.endswith("/") and not _hidden(entry.name):
                yield entry

    def below(self, folder: str) -> list[str]:
        """Return the names of the objects of one folder."""
        found = self._objects.list(f"{self.uri}{folder}/")
        return [f"{folder}/{entry.name}" for entry in found if entry.name and "/" not in entry.name]

    def uri_of(self, name: str) -> str:
        """Return ``s3://bucket/prefix/name``."""
        return self.uri + name

    def read(self, name: str, what: ObjectRole) -> bytes:
        """Read an object whole."""
        return self._objects.read(self.uri_of(name), what=what, max_bytes=_MAX_BYTES).data


class FolderRoot:
    """A folder of this machine. Its files come in the order of the file system; links to folders are not followed."""

    local = True

    def __init__(self, path: Path, objects: Objects) -> None:
        self.path = path.absolute()
        self.uri = f"{self.path.as_uri().rstrip('/')}/"
        self._objects = objects

    def entries(self) -> Iterator[ListedObject]:
        """Yield the files below the folder; a folder is read as it comes, since it may hold millions."""
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(self.path / folder) as found:
                    for item in found:
                        if item.name.startswith("."):
                            continue
                        name = f"{folder}{item.name}"
                        if item.is_dir(follow_symlinks=False):
                            waiting.append(f"{name}/")
                        elif item.is_file():
                            yield ListedObject(name, 0, None)
            except OSError as error:
                raise InvalidDocumentError(f"{self.path / folder} cannot be listed: {error.strerror}.") from error

    def below(self, folder: str) -> list[str]:
        """Return the names of the files of one folder."""
        return [f"{folder}/{file.name}" for file in (self.path / folder).iterdir() if file.is_file()]

    def uri_of(self, name: str) -> str:
        """Return ``file:///folder/name``, percent-encoded."""
        return self.uri + quote(name)

    def read(self, name: str, what: ObjectRole) -> bytes:
        """Read a file whole."""
        return self._objects.read(self.uri_of(name), what=what, max_bytes=_MAX_BYTES).data


def open_root(place: str, objects: Objects) -> StorageRoot:
    """Return the root that a user names: ``s3://bucket/prefix``, ``file:///folder`` or a folder's path.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where there is no such folder; a bucket is asked when it is
    listed. Raises :class:`~maskscore.errors.JobError` (``uri_invalid``) for another scheme.
    """
    scheme, separator, _ = place.partition("://")
    if scheme == "s3" and separator:
        return BucketRoot(place, objects)
    if separator and scheme != "file":
        raise JobError(
            FailureCode.URI_INVALID,
            f"{place!r} has the scheme {scheme!r}; give s3://bucket/prefix/, file:///folder or a folder's path.",
        )
    path = Path(unquote(place.removeprefix("file://")) if separator else place).expanduser()
    if path.is_file():
        raise InvalidDocumentError(
            f"{path} is a file. Give the folder (or prefix) of the images, and a dataset file as --masks."
        )
    if not path.is_dir():
        raise InvalidDocumentError(f"There is no folder {path}.")
    return FolderRoot(path, objects)


def _hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name
