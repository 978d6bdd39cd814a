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
from maskscore.objects.failures import CODES, What
from maskscore.objects.names import path_of

__all__ = ["file_etag", "open_file"]


@contextmanager
def open_file(uri: str, what: What, roots: Sequence[Path]) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open a regular file below one of the ``roots`` and give it with its status.

    Raises :class:`~maskscore.errors.JobError`: ``uri_not_allowed``, ``…_not_found``, ``…_forbidden``,
    ``storage_unavailable`` (passing).
    """
    path = path_of(uri)
    # Before anything is said of the file, so that nobody learns what lies outside.
    if not any(path.is_relative_to(root) for root in roots):
        raise JobError(
            FailureCode.URI_NOT_ALLOWED,
            f"{uri}: jobs may read files only in the worker's MASKSCORE_FILE_ROOTS.",
        )
    try:
        with open(path, "rb", opener=_open_at_once) as file:
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
        raise JobError(FailureCode.STORAGE_UNAVAILABLE, f"{uri} cannot be read: {error}.", passing=True) from error


def file_etag(status: os.stat_result) -> str:
    """Return what stands for a file's ETag: its size and the time of its last change."""
    return f'"{status.st_size:x}-{status.st_mtime_ns:x}"'


def _open_at_once(path: str, flags: int) -> int:
    # Opening a pipe would wait for ever; a link that has taken the file's place since may lead outside.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
