"""URIs of objects, ``s3://bucket/key`` and ``file:///path`` → buckets, keys, paths and file names."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from maskscore.errors import FailureCode, JobError

__all__ = ["bucket_and_key", "file_name_of", "object_path", "path_of"]


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Return an ``s3://`` URI's bucket and key. Raises :class:`~maskscore.errors.JobError`: ``uri_invalid``."""
    # Not urlsplit: '?', '#' and '%' are ordinary characters of a key.
    bucket, slash, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not slash or not key:
        raise JobError(FailureCode.URI_INVALID, f"{uri!r} is not an object's URI; write s3://bucket/key.")
    # The bucket is a part of the path too: what some HTTP library makes of `..` must not lead to another one.
    if any(part in (".", "..") for part in (bucket, *key.split("/"))):
        raise JobError(
            FailureCode.URI_INVALID, f"{uri!r} has a part '.' or '..', which is not read in an object's URI."
        )
    return bucket, key


def file_name_of(uri: str) -> str:
    """Return the file name in an object's URI, as annotation files write it: percent-decoded for ``file:`` URIs."""
    # In a key '%' is an ordinary character.
    return PurePosixPath(unquote(uri) if uri.startswith("file:") else uri).name


def object_path(uri: str) -> str:
    """Return an object's bucket and key, or a file's path without its first slash, percent-decoded for ``file:``."""
    return unquote(uri).removeprefix("file:").lstrip("/") if uri.startswith("file:") else uri.removeprefix("s3://")


def path_of(uri: str) -> Path:
    """Return the path of a ``file:`` URI (RFC 8089), with every link followed; raises ``uri_invalid``."""
    rest = uri.removeprefix("file:")
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest if host in ("", "localhost") else ""
    if not rest.startswith("/") or "?" in rest or "#" in rest:
        raise JobError(
            FailureCode.URI_INVALID,
            f"{uri!r} is not a local file; write file:///absolute/path, with %3F for ? and %23 for #.",
        )
    try:
        return Path(unquote(rest)).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        raise JobError(FailureCode.URI_INVALID, f"{uri!r} is no path: {error}.") from error
