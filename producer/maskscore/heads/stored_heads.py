"""Heads as JSON files: one file, or those of a folder by name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from maskscore.errors import HeadInvalid, HeadUnknown
from maskscore.schema import Head, explain
from maskscore.storage import write_text
from maskscore.text import did_you_mean

__all__ = ["find_head", "head_files", "read_head", "write_head"]

# 10,000 classes would be 100 MB; a file of this size has some 80 classes of 1,024 numbers in full precision.
_LARGEST: Final = 64 * 1024 * 1024


def read_head(path: Path) -> Head:
    """Read a head from a JSON file. Raises :class:`~maskscore.errors.HeadInvalid`."""
    try:
        stat = path.stat()
        if stat.st_size > _LARGEST:
            raise HeadInvalid(f"The head {path} has more than {_LARGEST:,} bytes.")
        return _parsed(path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise HeadInvalid(f"The head {path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        why = first["msg"] if first["type"] == "json_invalid" else explain(error)
        raise HeadInvalid(f"The head {path} is not valid: {why}.") from error


@lru_cache(maxsize=16)
def _parsed(path: Path, _mtime_ns: int, _size: int) -> Head:
    return Head.model_validate_json(path.read_bytes())


def write_head(head: Head, path: Path) -> None:
    """Write a head as JSON, whole or not at all. Raises :class:`~maskscore.errors.OutputError`."""
    write_text(path, head.model_dump_json(indent=1) + "\n")


def head_files(folder: Path | None) -> Iterator[tuple[str, Path]]:
    """Yield the name and path of each head of a folder (``NAME.json``), sorted; none for no folder."""
    for path in sorted(folder.glob("*.json")) if folder else []:
        yield path.stem, path


def find_head(name: str, folder: Path | None) -> Head:
    """Return the head of ``NAME.json`` in the folder.

    Raises :class:`~maskscore.errors.HeadUnknown` where there is none, and :class:`~maskscore.errors.HeadInvalid`.
    """
    known = dict(head_files(folder))
    if name in known:
        return read_head(known[name])
    if folder is None:
        listed = "MASKSCORE_HEADS_DIR, the folder of heads with names, is not set."
    else:
        listed = f"Known are {', '.join(known)}." if known else f"There are no heads in {folder} (MASKSCORE_HEADS_DIR)."
    raise HeadUnknown(
        f"There is no head {name!r:.100}{did_you_mean(name, known) or '.'} {listed} To use a head's file, give its "
        "path: NAME.json."
    )
