"""Output files of commands: written under a temporary name and then renamed, so that none is ever incomplete.

A file that the user names is replaced and keeps its mode; symbolic links are followed; FIFOs and devices are written
into. A file whose name the command has chosen is never replaced.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from maskscore.errors import MaskscoreError, OutputError
from maskscore.storage.store import Objects

__all__ = ["Output", "OutputError", "check_output", "output_errors", "output_file", "output_folder", "write_text"]

Output = str | Path
"""A path, or ``s3://bucket/key``."""


def check_output(output: Path, *, named: bool = True) -> None:
    """Raise :class:`~maskscore.errors.OutputError` if a file cannot be written there; call it before the work.

    ``named``: the user has named the file, so an existing one may be replaced.
    """
    with output_errors(output):
        final, there = _looked_up(output)
        if there is not None and not named:
            raise OutputError(f"{output} exists. Give `-o {output}` to replace it, or another name.")
        _check(output, final, there)


@contextmanager
def output_file(output: Output, objects: Objects | None = None, *, content_type: str = "") -> Iterator[Path]:
    """Provide the path to write to; what is written takes the place of ``output`` when the block ends well.

    An S3 object, and what goes into a FIFO or a device, is written to a temporary folder first. Raises
    :class:`~maskscore.errors.OutputError` when it cannot be written, and :class:`~maskscore.errors.JobError` as
    :meth:`maskscore.storage.Objects.upload` does.
    """
    if objects is not None and _is_s3(output):
        with output_errors(output), TemporaryDirectory(prefix="maskscore-output-") as folder:
            yield Path(folder) / "part"
            objects.upload(str(output), Path(folder) / "part", content_type=content_type)
        return
    with output_errors(output):
        final, there = _looked_up(Path(output))
        _check(output, final, there)
        if there is not None and not stat.S_ISREG(there.st_mode):
            with TemporaryDirectory(prefix="maskscore-output-") as folder:
                yield Path(folder) / "part"
                with (Path(folder) / "part").open("rb") as source, final.open("wb") as target:
                    shutil.copyfileobj(source, target)
            return
        part = _beside(final)
        try:
            yield part
            if there is not None:
                _keep(part, there)
            part.replace(final)
        finally:
            part.unlink(missing_ok=True)


def write_text(output: Path, text: str) -> None:
    """Write a text as UTF-8; see :func:`output_file`."""
    with output_file(output) as path:
        path.write_text(text, "utf-8")


@contextmanager
def output_folder(output: Output, objects: Objects, *, content_type: str) -> Iterator[Path]:
    """Provide the folder to write to; it becomes ``output`` when the block ends well.

    ``output`` must not exist, or be empty. With ``s3://bucket/prefix/`` the files become objects below the prefix, one
    after the other. Raises as :func:`output_file` does.
    """
    if _is_s3(output):
        with output_errors(output), TemporaryDirectory(prefix="maskscore-output-") as folder:
            yield Path(folder)
            for path in Path(folder).rglob("*"):
                if path.is_file():
                    name = path.relative_to(folder).as_posix()
                    objects.upload(f"{str(output).rstrip('/')}/{name}", path, content_type=content_type)
        return
    with output_errors(output):
        final, there = _looked_up(Path(output))
        part = _beside(final)
        _check_parent(final)
        if there is not None and (not final.is_dir() or any(final.iterdir())):
            raise OutputError(f"{output} exists and is no empty folder; name a new one.")
        try:
            part.mkdir()
            yield part
            if there is not None:
                _keep(part, there)
            with suppress(FileNotFoundError):
                final.rmdir()
            part.rename(final)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def output_errors(output: Output) -> Iterator[None]:
    """Turn an :class:`OSError` into :class:`~maskscore.errors.OutputError`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, MaskscoreError | BrokenPipeError):
            raise
        reason = error.strerror or os.strerror(error.errno or 0)
        raise OutputError(f"{output} cannot be written: {reason} ({error.filename or 'no file'}).") from error


def _looked_up(output: Path) -> tuple[Path, os.stat_result | None]:
    """Return the path behind symbolic links, and what is there now."""
    given = output.absolute()
    try:
        there = given.stat()
    except FileNotFoundError:
        there = None
    # Behind /dev/stdout and its like there may be no path at all.
    special = there is not None and not stat.S_ISREG(there.st_mode) and not stat.S_ISDIR(there.st_mode)
    return (given if special else Path(os.path.realpath(given))), there


def _check(output: Output, final: Path, there: os.stat_result | None) -> None:
    if there is None:
        _check_parent(final)
    elif stat.S_ISDIR(there.st_mode):
        raise OutputError(f"{output} is a folder; name a file in it.")
    elif stat.S_ISBLK(there.st_mode):
        raise OutputError(f"{output} is a disk; name a file.")
    elif not os.access(final, os.W_OK):
        raise OutputError(f"{output} cannot be written: it is read-only for this user.")


def _check_parent(final: Path) -> None:
    if not final.parent.is_dir():
        raise OutputError(f"There is no folder {final.parent}; make it first.")


def _keep(part: Path, there: os.stat_result) -> None:
    """Give the new file the mode of the one that it replaces, and its owner where that is allowed."""
    with suppress(PermissionError):
        os.chown(part, there.st_uid, there.st_gid)
    part.chmod(stat.S_IMODE(there.st_mode))


def _is_s3(output: Output) -> bool:
    return isinstance(output, str) and output.startswith("s3://")


def _beside(final: Path) -> Path:
    return final.with_name(f".{final.name[:100]}.{uuid.uuid4().hex[:12]}.part")
