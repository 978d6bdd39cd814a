"""Files as objects: only those in allowed folders, only regular ones, and none that a link leads out of them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from maskscore.errors import FailureCode, JobError
from maskscore.storage.failures import CODES, ObjectRole, changed, check_size
from maskscore.storage.uris import path_of

__all__ = ["file_etag", "open_file", "read_file"]


@contextmanager
def open_file(uri: str, what: ObjectRole, roots: Sequence[Path]) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open a regular file below one of the ``roots`` and give it with its status.

    Raises :class:`~maskscore.errors.JobError`: ``uri_not_allowed``, ``…_not_found``, ``…_forbidden``,
    ``storage_unavailable`` (transient).
    """
    path = path_of(uri)
    # Before anything is said of the file, so that nobody learns what lies outside.
    root = next((root for root in roots if path.is_relative_to(root)), None)
    if root is None:
        raise JobError(
            FailureCode.URI_NOT_ALLOWED,
            f"{uri}: jobs may read files only in the worker's MASKSCORE_FILE_ROOTS.",
        )
    try:
        with open(path, "rb", opener=lambda _, flags: _open_below(root, path.relative_to(root).parts, flags)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise JobError(CODES[what].not_found, f"{uri} is not a regular file.")
            yield file, status
    except (FileNotFoundError, NotADirectoryError) as error:
        raise JobError(CODES[what].not_found, f"There is no file {uri} on the worker's machine.") from error
    except IsADirectoryError as error:
        raise JobError(CODES[what].not_found, f"{uri} is a folder, not a file.") from error
    except PermissionError as error:
        raise JobError(CODES[what].forbidden, f"The worker may not read {uri}.") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO):
            raise JobError(CODES[what].not_found, f"{uri} is no file: {error.strerror}.") from error
        raise JobError(FailureCode.STORAGE_UNAVAILABLE, f"{uri} cannot be read: {error}.") from error


def read_file(
    uri: str,
    what: ObjectRole,
    roots: Sequence[Path],
    *,
    max_bytes: int,
    etag: str | None,
    start: int | None = None,
) -> tuple[bytes, str, int]:
    """Return a file's bytes, what stands for its ETag, and its size.

    With ``start`` at most ``max_bytes`` from there on are read; without, a larger file is refused. Raises as
    :func:`open_file` does, and ``…_too_large`` and ``…_changed``.
    """
    with open_file(uri, what, roots) as (file, status):
        if start is None:
            check_size(uri, what, status.st_size, max_bytes)
            data = file.read(max_bytes + 1)
            check_size(uri, what, len(data), max_bytes)
        else:
            file.seek(start)
            data = file.read(max_bytes)
    found = file_etag(status)
    if etag is not None and etag.strip('"') != found.strip('"'):
        raise changed(uri, what, etag, found)
    return data, found, status.st_size


def file_etag(status: os.stat_result) -> str:
    """Return what stands for a file's ETag: its size and the time of its last change."""
    return f'"{status.st_size:x}-{status.st_mtime_ns:x}"'


def _open_below(root: Path, parts: Sequence[str], flags: int) -> int:
    """Open a file by walking down from the root, one name at a time, and following no link.

    The path was resolved before, so a link on the way has taken a folder's or the file's place since, and may lead
    outside.
    """
    if not parts:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(root))
    # O_PATH: a folder that may be entered need not be readable.
    on_the_way = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
    folder = os.open(root, on_the_way)
    try:
        for name in parts[:-1]:
            below = os.open(name, on_the_way | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        # Opening a pipe would wait for ever.
        return os.open(parts[-1], flags | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)
