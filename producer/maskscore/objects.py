"""Objects by URI: ``s3://bucket/key`` and ``file:///path``, inside what is allowed and below a size."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import unquote

import boto3
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from urllib3.exceptions import HTTPError

from maskscore.errors import FailureCode, JobError

__all__ = ["FetchedObject", "ListedObject", "Objects", "What"]

What = Literal["image", "masks", "result"]

_CHUNK = 1 << 20
_ATTEMPTS = 3
# What reading an answer's body may raise; botocore does not try again by itself once the answer has begun.
_CUT_OFF = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError, HTTPError)
# Answered with status 400, as if the request were malformed.
_STALE_CREDENTIALS = ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired")
_BAD_NAMES = ("InvalidBucketName", "InvalidURI", "KeyTooLongError")


@dataclass(frozen=True, slots=True)
class FetchedObject:
    """An object's bytes and which version of it they are."""

    data: bytes
    etag: str | None
    version_id: str | None


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object as a listing shows it: its key below the prefix, its size in bytes, and its ETag."""

    name: str
    size: int
    etag: str | None


@dataclass(frozen=True, slots=True)
class _Codes:
    not_found: FailureCode
    forbidden: FailureCode
    changed: FailureCode
    too_large: FailureCode


_CODES: dict[What, _Codes] = {
    "image": _Codes(
        FailureCode.IMAGE_NOT_FOUND,
        FailureCode.IMAGE_FORBIDDEN,
        FailureCode.IMAGE_CHANGED,
        FailureCode.IMAGE_TOO_LARGE,
    ),
    "masks": _Codes(
        FailureCode.MASKS_NOT_FOUND,
        FailureCode.MASKS_FORBIDDEN,
        FailureCode.MASKS_CHANGED,
        FailureCode.MASKS_TOO_LARGE,
    ),
    "result": _Codes(
        FailureCode.RESULT_NOT_STORED,
        FailureCode.RESULT_FORBIDDEN,
        FailureCode.RESULT_NOT_STORED,
        FailureCode.RESULT_NOT_STORED,
    ),
}


class Objects:
    """Reads and writes objects; safe to share between threads.

    Parameters
    ----------
    buckets, result_buckets: buckets that may be read and written; ``None`` or ``*`` inside: any.
    file_roots: folders whose files may be read as ``file://``.
    timeout_s: seconds that one request may take to connect, and to wait for each piece of the answer.
    pool_size: connections kept open.

    S3's address, region and credentials are boto3's own settings (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, …).
    """

    def __init__(
        self,
        *,
        buckets: Collection[str] | None,
        result_buckets: Collection[str] | None,
        file_roots: Sequence[Path] = (),
        timeout_s: float = 30.0,
        pool_size: int = 10,
    ) -> None:
        self._buckets = buckets
        self._result_buckets = result_buckets
        self._file_roots = [root.resolve() for root in file_roots]
        self._config = Config(
            connect_timeout=min(timeout_s, 10.0),
            read_timeout=timeout_s,
            max_pool_connections=pool_size,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            # Stores other than Amazon's do not all know the checksums that newer releases send by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._client: Any = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def read(
        self, uri: str, *, what: What, max_bytes: int, etag: str | None = None, version_id: str | None = None
    ) -> FetchedObject:
        """Read an object whole.

        ``what`` it is decides the codes. ``etag`` refuses any other content than that one; ``version_id`` reads one
        version of a versioned bucket. Raises :class:`~maskscore.errors.JobError`: ``…_not_found``, ``…_forbidden``,
        ``…_changed``, ``…_too_large``, ``uri_not_allowed``, ``uri_invalid``, ``storage_unavailable`` (passing).
        """
        scheme, colon, _ = uri.partition(":")
        if scheme == "s3":
            return self._read_s3(uri, what, max_bytes, etag, version_id)
        if scheme == "file":
            return self._read_file(uri, what, max_bytes, etag)
        raise JobError(
            FailureCode.URI_INVALID,
            f"{uri!r} has the scheme {scheme!r}; s3://bucket/key and file:///path are read."
            if colon
            else f"{uri!r} is not a URI; give s3://bucket/key or file:///path.",
        )

    def etag(self, uri: str, *, what: What, version_id: str | None = None) -> str:
        """Return an object's present ETag without reading it; raises as :meth:`read` does."""
        if uri.startswith("file:"):
            with self._opened(uri, what) as (_, status):
                return _file_etag(status)
        bucket, key = self._readable(uri)
        given = {} if version_id is None else {"VersionId": version_id}
        with _s3_errors(uri, bucket, what):
            answer = self._s3().head_object(Bucket=bucket, Key=key, **given)
        return str(answer["ETag"])

    def download(self, uri: str, path: Path, *, what: What) -> None:
        """Write an ``s3://`` object of any size into a file; raises as :meth:`read` does."""
        bucket, key = _bucket_and_key(uri)
        with _s3_errors(uri, bucket, what):
            self._s3().download_file(bucket, key, str(path))

    def list(self, uri: str) -> Iterator[ListedObject]:
        """Yield the objects under ``s3://bucket/prefix/`` (or ``s3://bucket/``), by key, a page per request.

        The keys' order is the store's, that of their UTF-8 bytes. Raises :class:`~maskscore.errors.JobError`:
        ``image_not_found`` (no such bucket), ``image_forbidden``, ``uri_invalid``, ``storage_unavailable`` (passing).
        """
        bucket, slash, prefix = uri.removeprefix("s3://").partition("/")
        if not uri.startswith("s3://") or not bucket or not slash or (prefix and not prefix.endswith("/")):
            raise JobError(FailureCode.URI_INVALID, f"{uri!r} is not a prefix; write s3://bucket/prefix/.")
        with _s3_errors(uri, bucket, "image"):
            for page in self._s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield ListedObject(item["Key"].removeprefix(prefix), int(item["Size"]), item.get("ETag"))

    def write(self, uri: str, data: bytes, *, content_type: str) -> str:
        """Write an ``s3://`` object and return its ETag.

        Raises :class:`~maskscore.errors.JobError`: ``result_forbidden``, ``result_not_stored``, ``uri_invalid``,
        ``storage_unavailable`` (passing).
        """
        bucket, key = _bucket_and_key(uri)
        if not _allowed(bucket, self._result_buckets):
            raise _not_for_results(uri, bucket)
        with _s3_errors(uri, bucket, "result"):
            answer = self._s3().put_object(Bucket=bucket, Key=key, Body=data, ContentType=content_type)
            return str(answer["ETag"])

    def upload(self, uri: str, path: Path, *, content_type: str) -> None:
        """Write a file of any size as an ``s3://`` object, in parts; raises as :meth:`write` does."""
        bucket, key = _bucket_and_key(uri)
        if not _allowed(bucket, self._result_buckets):
            raise _not_for_results(uri, bucket)
        with _s3_errors(uri, bucket, "result"):
            try:
                self._s3().upload_file(str(path), bucket, key, ExtraArgs={"ContentType": content_type})
            except S3UploadFailedError as error:
                # boto3 wraps what the store answered in an error of another family.
                raise error.__cause__ or error.__context__ or error from None

    def _s3(self) -> Any:
        with self._lock:
            if self._client is None:
                # A session of its own: boto3's default one is not safe to share between threads while it starts.
                try:
                    self._client = boto3.session.Session().client("s3", config=self._config)
                except ValueError as error:
                    raise JobError(
                        FailureCode.STORAGE_UNAVAILABLE,
                        f"The object store cannot be asked: {error}. Set AWS_ENDPOINT_URL to http://host:port or "
                        "https://host.",
                    ) from error
            return self._client

    def _readable(self, uri: str) -> tuple[str, str]:
        bucket, key = _bucket_and_key(uri)
        if not _allowed(bucket, self._buckets):
            raise JobError(
                FailureCode.URI_NOT_ALLOWED,
                f"{uri}: jobs may not read the bucket {bucket!r}. The worker's MASKSCORE_BUCKETS decides.",
            )
        return bucket, key

    def _read_s3(self, uri: str, what: What, max_bytes: int, etag: str | None, version_id: str | None) -> FetchedObject:
        bucket, key = self._readable(uri)
        conditions = {"IfMatch": etag, "VersionId": version_id}
        given = {name: value for name, value in conditions.items() if value is not None}
        with _s3_errors(uri, bucket, what):
            for attempt in range(1, _ATTEMPTS + 1):
                answer = self._s3().get_object(Bucket=bucket, Key=key, **given)
                try:
                    with closing(answer["Body"]) as body:
                        _check_size(uri, what, answer.get("ContentLength", 0), max_bytes)
                        data = b"".join(_limited(body.iter_chunks(_CHUNK), uri, what, max_bytes))
                    break
                except _CUT_OFF:
                    if attempt == _ATTEMPTS:
                        raise
        found = answer.get("ETag")
        # Not every store knows IfMatch.
        if etag is not None and found is not None and found.strip('"') != etag.strip('"'):
            raise _changed(uri, what, etag, found)
        return FetchedObject(data, found, answer.get("VersionId"))

    def _read_file(self, uri: str, what: What, max_bytes: int, etag: str | None) -> FetchedObject:
        with self._opened(uri, what) as (file, status):
            _check_size(uri, what, status.st_size, max_bytes)
            data = file.read(max_bytes + 1)
        _check_size(uri, what, len(data), max_bytes)
        found = _file_etag(status)
        if etag is not None and etag.strip('"') != found.strip('"'):
            raise _changed(uri, what, etag, found)
        return FetchedObject(data, found, None)

    @contextmanager
    def _opened(self, uri: str, what: What) -> Iterator[tuple[BinaryIO, os.stat_result]]:
        path = _path(uri)
        # Before anything is said of the file, so that nobody learns what lies outside.
        if not any(path.is_relative_to(root) for root in self._file_roots):
            raise JobError(
                FailureCode.URI_NOT_ALLOWED,
                f"{uri}: jobs may read files only in the worker's MASKSCORE_FILE_ROOTS.",
            )
        try:
            with open(path, "rb", opener=_open_at_once) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise JobError(_CODES[what].not_found, f"{uri} is not a regular file.")
                yield file, status
        except (FileNotFoundError, NotADirectoryError) as error:
            raise JobError(_CODES[what].not_found, f"There is no file {uri} on the worker's machine.") from error
        except IsADirectoryError as error:
            raise JobError(_CODES[what].not_found, f"{uri} is a folder, not a file.") from error
        except PermissionError as error:
            raise JobError(_CODES[what].forbidden, f"The worker may not read {uri}.") from error
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO):
                raise JobError(_CODES[what].not_found, f"{uri} is no file: {error.strerror}.") from error
            raise JobError(FailureCode.STORAGE_UNAVAILABLE, f"{uri} cannot be read: {error}.", passing=True) from error


def _file_etag(status: os.stat_result) -> str:
    return f'"{status.st_size:x}-{status.st_mtime_ns:x}"'


def _open_at_once(path: str, flags: int) -> int:
    # Opening a pipe would wait for ever; a link that has taken the file's place since may lead outside.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))


def _allowed(bucket: str, names: Collection[str] | None) -> bool:
    return names is None or bucket in names or "*" in names


def _not_for_results(uri: str, bucket: str) -> JobError:
    return JobError(
        FailureCode.RESULT_FORBIDDEN,
        f"{uri}: results may not go to the bucket {bucket!r}. The worker's MASKSCORE_RESULT_BUCKETS decides.",
    )


def _path(uri: str) -> Path:
    """Return the path of a ``file:`` URI (RFC 8089), with every link followed."""
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


def _bucket_and_key(uri: str) -> tuple[str, str]:
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


def _limited(chunks: Iterable[bytes], uri: str, what: What, max_bytes: int) -> Iterator[bytes]:
    """Count the bytes while they come, since an answer need not state its length."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        _check_size(uri, what, size, max_bytes)
        yield chunk


def _check_size(uri: str, what: What, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        limit = f" (MASKSCORE_MAX_{what.upper()}_BYTES)" if what != "result" else ""
        raise JobError(_CODES[what].too_large, f"{uri} has {size:,} bytes; at most {max_bytes:,} are read{limit}.")


def _changed(uri: str, what: What, wanted: str, found: str | None) -> JobError:
    there = f" (it has {found} now)" if found else ""
    return JobError(
        _CODES[what].changed,
        f"{uri} is not the object that the job was submitted for: its ETag is not {wanted}{there}. Submit again for "
        "the present object.",
    )


@contextmanager
def _s3_errors(uri: str, bucket: str, what: What) -> Iterator[None]:
    """Translate boto3's errors once."""
    codes = _CODES[what]
    try:
        yield
    except ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        name = error.response.get("Error", {}).get("Code", "")
        if name == "NoSuchBucket":
            raise JobError(codes.not_found, f"{uri}: there is no bucket {bucket!r}.") from error
        if name == "NoSuchVersion":
            raise JobError(codes.not_found, f"{uri} has no such version.") from error
        if status == 412 or name == "PreconditionFailed":
            raise _changed(uri, what, "the job's", None) from error
        if status == 404:
            raise JobError(codes.not_found, f"There is no object {uri}.") from error
        if name in _BAD_NAMES:
            raise JobError(FailureCode.URI_INVALID, f"The store refuses the name {uri!r}: {name}.") from error
        if name == "InvalidObjectState":
            raise JobError(codes.forbidden, f"{uri} is archived; restore it first.") from error
        if status in (401, 403) or name in _STALE_CREDENTIALS:
            raise JobError(
                codes.forbidden,
                f"The store refuses access to {uri} ({name}). Check the AWS credentials and the bucket's policy.",
            ) from error
        if status >= 500 or status == 429 or name in ("SlowDown", "RequestTimeout", "Throttling"):
            raise _unavailable(uri, f"it answered {status} {name}") from error
        raise JobError(codes.not_found, f"The store refuses {uri}: {status} {name}: {error}") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise JobError(
            codes.forbidden,
            f"{uri} cannot be asked for: no AWS credentials are set. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or one of boto3's other sources.",
        ) from error
    except ParamValidationError as error:
        raise JobError(FailureCode.URI_INVALID, f"{uri!r} is not an object's URI: {error}") from error
    except (ConnectionError, HTTPClientError, *_CUT_OFF) as error:
        raise _unavailable(uri, str(error)) from error
    except BotoCoreError as error:
        raise JobError(FailureCode.STORAGE_UNAVAILABLE, f"{uri} cannot be asked for: {error}") from error


def _unavailable(uri: str, why: str) -> JobError:
    return JobError(
        FailureCode.STORAGE_UNAVAILABLE,
        f"The object store does not answer for {uri} after {_ATTEMPTS} attempts: {why}. Check AWS_ENDPOINT_URL, or try "
        "again later.",
        passing=True,
    )
