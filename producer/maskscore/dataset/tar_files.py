"""Tar files as the user names them: one, or several by a pattern, in S3 or on this machine."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from maskscore.errors import InvalidDocumentError
from maskscore.schema import TarSource
from maskscore.storage import Objects

__all__ = ["find_tars", "is_tar", "tar_stem"]

_ENDINGS: Final = (".tar.gz", ".tar.zst", ".tar", ".tgz")
_NOT_READ: Final = (".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.lz4", ".zip", ".7z", ".rar")
_WILDCARD: Final = re.compile(r"[*?[]")


def is_tar(place: str) -> bool:
    """Whether a place names archives: by its ending, or by ``*``, ``?`` or ``[...]`` in its last part."""
    base = place.rpartition("/")[2]
    named = base.lower().endswith((*_ENDINGS, *_NOT_READ))
    return named or (_WILDCARD.search(base) is not None and not Path(place).is_dir())


def tar_stem(uri: str) -> str:
    """Return a tar's file name without its ending."""
    name = uri.rpartition("/")[2]
    return next((name[: -len(ending)] for ending in _ENDINGS if name.lower().endswith(ending)), name)


def find_tars(place: str, objects: Objects) -> list[TarSource]:
    """Return the tar files that ``s3://bucket/path/*.tar``, a path or one without wildcards names, by name.

    Those in S3 are pinned by their ETags. Raises :class:`~maskscore.errors.InvalidDocumentError` where there is none,
    and :class:`~maskscore.errors.JobError` where a bucket cannot be listed.
    """
    if place.startswith("s3://"):
        wildcard = _WILDCARD.search(place)
        prefix = place[: wildcard.start() if wildcard else len(place)].rpartition("/")[0] + "/"
        pattern = place.removeprefix(prefix)
        found = [
            TarSource(uri=prefix + entry.name, etag=entry.etag)
            for entry in objects.list(prefix)
            # A star does not reach into folders, as in a shell.
            if entry.name.count("/") == pattern.count("/") and fnmatchcase(entry.name, pattern)
        ]
    else:
        path = Path(place.removeprefix("file://")).expanduser().absolute()
        matching = sorted(path.parent.glob(path.name)) if path.parent.is_dir() else []
        found = [TarSource(uri=file.as_uri()) for file in matching if file.is_file()]
    tars = [tar for tar in found if tar.uri.lower().endswith(_ENDINGS)]
    if tars:
        return tars
    read = f"{', '.join(_ENDINGS[:-1])} and {_ENDINGS[-1]} are read"
    if found:
        raise InvalidDocumentError(
            f"{found[0].uri} is no tar file by its ending: {read}. Pack its files as one of these."
        )
    where = "" if _WILDCARD.search(place) else " A pattern stands in quotes: 's3://bucket/*.tar'."
    raise InvalidDocumentError(f"There is no tar file {place} ({read}).{where}")
