"""Where an export goes: written under another name, and there whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from maskscore.errors import MaskscoreError, OutputError
from maskscore.objects import Objects

__all__ = ["Output", "OutputError", "output_file", "output_folder"]

Output = str | Path
"""A path, or ``s3://bucket/key``."""


@contextmanager
def output_file(output: Output, objects: Objects, *, content_type: str) -> Iterator[Path]:
    """Provide the path to write to; what is written takes the place of ``output`` when the block ends well.

    An S3 object is written to a temporary folder first. Raises :class:`~maskscore.errors.OutputError` when it cannot
    be written, and :class:`~maskscore.errors.JobError` as :meth:`maskscore.objects.Objects.upload` does.
    """
    if _is_s3(output):
        with _writable(output), TemporaryDirectory(prefix="maskscore-export-") as folder:
            yield Path(folder) / "part"
            objects.upload(str(output), Path(folder) / "part", content_type=content_type)
        return
    final = Path(output).absolute()
    part = _beside(final)
    with _writable(output):
        _check_parent(final)
        if final.is_dir():
            raise OutputError(f"{output} is a folder; name a file in it.")
        try:
            yield part
            part.replace(final)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def output_folder(output: Output, objects: Objects, *, content_type: str) -> Iterator[Path]:
    """Provide the folder to write to; it becomes ``output`` when the block ends well.

    ``output`` must not exist, or be empty. With ``s3://bucket/prefix/`` the files become objects below the prefix, one
    after the other. Raises as :func:`output_file` does.
    """
    if _is_s3(output):
        with _writable(output), TemporaryDirectory(prefix="maskscore-export-") as folder:
            yield Path(folder)
            for path in Path(folder).iterdir():
                objects.upload(f"{str(output).rstrip('/')}/{path.name}", path, content_type=content_type)
        return
    final = Path(output).absolute()
    part = _beside(final)
    with _writable(output):
        _check_parent(final)
        if final.exists() and (not final.is_dir() or any(final.iterdir())):
            raise OutputError(f"{output} exists and is no empty folder; name a new one.")
        try:
            part.mkdir()
            yield part
            with suppress(FileNotFoundError):
                final.rmdir()
            part.rename(final)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _is_s3(output: Output) -> bool:
    return isinstance(output, str) and output.startswith("s3://")


def _check_parent(final: Path) -> None:
    if not final.parent.is_dir():
        raise OutputError(f"There is no folder {final.parent}; make it first.")


def _beside(final: Path) -> Path:
    return final.with_name(f".{final.name[:100]}.{uuid.uuid4().hex[:12]}.part")


@contextmanager
def _writable(output: Output) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, MaskscoreError | BrokenPipeError):
            raise
        reason = error.strerror or os.strerror(error.errno or 0)
        raise OutputError(f"{output} cannot be written: {reason} ({error.filename or 'no file'}).") from error
