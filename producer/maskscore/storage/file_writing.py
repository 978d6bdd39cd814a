"""Writes results as files: only below allowed folders, whole or not at all, and through no link."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from maskscore.errors import FailureCode, JobError
from maskscore.storage.files import file_etag
from maskscore.storage.uris import path_of

__all__ = ["check_writable", "remove_file", "write_file"]

_TRANSIENT: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)
# Not every file system has hard links.
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def check_writable(uri: str, roots: Sequence[Path]) -> tuple[Path, Path]:
    """Return the root that a ``file://`` URI is below, and its path below that.

    Raises :class:`~maskscore.errors.JobError`: ``result_forbidden`` where it is below none of the ``roots``, and
    ``uri_invalid``.
    """
    path = path_of(uri)
    for root in roots:
        if path.is_relative_to(root):
            return root, path.relative_to(root)
    raise JobError(
        FailureCode.RESULT_FORBIDDEN,
        f"{uri}: results may go to files only in the worker's MASKSCORE_RESULT_ROOTS.",
    )


def write_file(uri: str, data: bytes, roots: Sequence[Path], *, replaces: Callable[[bytes], None] | None = None) -> str:
    """Write a file that appears whole, with the folders that lead to it below its root; return its ETag as a file's is.

    The bytes of an existing file are passed to ``replaces``, which raises if that file must stay. Raises
    :class:`~maskscore.errors.JobError` as :func:`check_writable` does; ``result_forbidden`` where the worker lacks the
    rights, ``result_not_stored`` for what is no file's place, ``storage_unavailable`` (transient) for a full disk.
    """
    root, below = check_writable(uri, roots)
    with _errors(uri), _folder(root, below.parts[:-1], create=True) as folder:
        name = below.name
        part = f".{name[:100]}.{uuid.uuid4().hex[:12]}.part"
        try:
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=folder)
            with os.fdopen(file, "wb") as opened:
                opened.write(data)
                opened.flush()
                # The ledger is told of it next.
                os.fsync(opened.fileno())
            if replaces is None or not _appeared_new(part, name, folder):
                if replaces is not None and (found := _content(name, folder)) is not None:
                    replaces(found)
                os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            return file_etag(os.stat(name, dir_fd=folder, follow_symlinks=False))
        finally:
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=folder)


def remove_file(uri: str, roots: Sequence[Path]) -> None:
    """Remove a file, if it is there; raises as :func:`write_file` does."""
    root, below = check_writable(uri, roots)
    with _errors(uri), suppress(FileNotFoundError), _folder(root, below.parts[:-1], create=False) as folder:
        os.unlink(below.name, dir_fd=folder)


def _appeared_new(part: str, name: str, folder: int) -> bool:
    """Give the part its name where nothing has it; say whether that was done."""
    try:
        os.link(part, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True


def _content(name: str, folder: int) -> bytes | None:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as opened:
        return opened.read()


@contextmanager
def _folder(root: Path, parts: Sequence[str], *, create: bool) -> Iterator[int]:
    """Open a folder by walking down from the root, one name at a time, and following no link.

    The path was resolved before, so a link on the way has taken a folder's place since, and may lead outside.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    folder = os.open(root, flags)
    try:
        for name in parts:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=folder)
            below = os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    try:
        yield
    except JobError:
        raise
    except PermissionError as error:
        raise JobError(FailureCode.RESULT_FORBIDDEN, f"The worker may not write {uri}.") from error
    except OSError as error:
        code = FailureCode.STORAGE_UNAVAILABLE if error.errno in _TRANSIENT else FailureCode.RESULT_NOT_STORED
        raise JobError(code, f"{uri} cannot be written: {error.strerror}.") from error
