"""Reads and writes objects by URI, only in allowed buckets and folders and only up to a size.

It is one class, so it is longer than other modules.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from boto3.exceptions import S3UploadFailedError

from maskscore.errors import FailureCode, JobError
from maskscore.storage.failures import CODES, ObjectRole, changed, check_size, error_code, s3_errors
from maskscore.storage.file_writing import check_writable, remove_file, write_file
from maskscore.storage.files import file_etag, open_file, read_file
from maskscore.storage.obstore_client import ReceivedObject
from maskscore.storage.s3_clients import S3Refusal
from maskscore.storage.s3_requests import S3Requests
from maskscore.storage.uris import bucket_and_key

__all__ = ["FetchedObject", "FetchedRange", "ListedObject", "Objects"]


@dataclass(frozen=True, slots=True)
class FetchedObject:
    """An object's bytes and which version of it they are."""

    data: bytes
    etag: str | None
    version_id: str | None


@dataclass(frozen=True, slots=True)
class FetchedRange:
    """Some of an object's bytes, which version of it they are of, and its whole size in bytes."""

    data: bytes
    etag: str | None
    size: int


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object as a listing shows it: its key below the prefix, its size in bytes, and its ETag."""

    name: str
    size: int
    etag: str | None


class Objects:
    """Reads and writes objects; safe to share between threads.

    Parameters
    ----------
    buckets, result_buckets: buckets that may be read and written; ``None`` or ``*`` inside: any.
    file_roots, result_roots: folders whose files may be read and written as ``file://``.
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
        result_roots: Sequence[Path] = (),
        timeout_s: float = 30.0,
        pool_size: int = 10,
    ) -> None:
        self._buckets = buckets
        self._result_buckets = result_buckets
        self._file_roots = [root.resolve() for root in file_roots]
        self._result_roots = [root.resolve() for root in result_roots]
        self._s3 = S3Requests(timeout_s=timeout_s, pool_size=pool_size)

    def close(self) -> None:
        """Close the connections."""
        self._s3.close()

    def read(
        self, uri: str, *, what: ObjectRole, max_bytes: int, etag: str | None = None, version_id: str | None = None
    ) -> FetchedObject:
        """Read an object whole.

        ``what`` is the object's role, which decides the codes. ``etag`` refuses any other content; ``version_id`` reads
        one version in a versioned bucket. Raises :class:`~maskscore.errors.JobError`: ``…_not_found``, ``…_forbidden``,
        ``…_changed``, ``…_too_large``, ``uri_not_allowed``, ``uri_invalid``, ``storage_unavailable`` (transient).
        """
        if _is_s3(uri):
            received = self._read_s3(uri, what, max_bytes, etag=etag, version_id=version_id)
            return FetchedObject(received.data, received.etag, received.version_id)
        data, found, _ = read_file(uri, what, self._file_roots, max_bytes=max_bytes, etag=etag)
        return FetchedObject(data, found, None)

    def read_range(
        self, uri: str, start: int, length: int, *, what: ObjectRole, etag: str | None = None
    ) -> FetchedRange:
        """Read ``length`` bytes of an object from the byte ``start`` on: fewer where it ends before, perhaps none.

        ``length`` is at least 1. Several threads may read at once. Raises as :meth:`read` does; ``etag`` refuses any
        other content, so that the parts of an object that is replaced meanwhile are never mixed.
        """
        if start < 0 or length < 1:
            raise ValueError(f"{length} bytes from {start} on cannot be read")
        if _is_s3(uri):
            received = self._read_s3(uri, what, length, etag=etag, byte_range=(start, start + length))
            return FetchedRange(received.data, received.etag, received.size)
        data, found, size = read_file(uri, what, self._file_roots, max_bytes=length, etag=etag, start=start)
        return FetchedRange(data, found, size)

    def etag(self, uri: str, *, what: ObjectRole, version_id: str | None = None) -> str:
        """Return an object's present ETag without reading it; raises as :meth:`read` does.

        A ``result`` is in one of the ``result_buckets`` or ``result_roots``.
        """
        if uri.startswith("file:"):
            roots = [*self._file_roots, *(self._result_roots if what == "result" else ())]
            with open_file(uri, what, roots) as (_, status):
                return file_etag(status)
        bucket, key = self._writable(uri) if what == "result" else self._readable(uri)
        given = {} if version_id is None else {"VersionId": version_id}
        with s3_errors(uri, bucket, what):
            answer = self._s3.client().head_object(Bucket=bucket, Key=key, **given)
        return str(answer["ETag"])

    def exists(self, uri: str, *, what: ObjectRole) -> bool:
        """Say whether there is such an object; raises as :meth:`read` does where that cannot be told."""
        try:
            self.etag(uri, what=what)
        except JobError as error:
            if error.code == CODES[what].not_found:
                return False
            raise
        return True

    def presigned_url(self, uri: str, *, expires_s: int, version_id: str | None = None) -> str:
        """Return a URL by which whoever has it may read an ``s3://`` object for ``expires_s`` seconds, at most 7 days.

        The store is not asked, so the object need not be there. With temporary credentials the URL ends with them.
        Raises :class:`~maskscore.errors.JobError`: ``uri_not_allowed``, ``uri_invalid``, ``storage_unavailable``.
        """
        bucket, key = self._readable(uri)
        given = {} if version_id is None else {"VersionId": version_id}
        with s3_errors(uri, bucket, "image"):
            # botocore signs URLs of some regions by version 2 of the signature, which newer buckets do not take.
            client = self._s3.client(signature_version="s3v4")
            parameters = {"Bucket": bucket, "Key": key, **given}
            return str(client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=expires_s))

    def download(self, uri: str, path: Path, *, what: ObjectRole) -> None:
        """Write an ``s3://`` object of any size into a file; raises as :meth:`read` does."""
        bucket, key = self._readable(uri)
        with s3_errors(uri, bucket, what):
            self._s3.client().download_file(bucket, key, str(path))

    def list(self, uri: str) -> Iterator[ListedObject]:
        """Yield the objects under ``s3://bucket/prefix/`` (or ``s3://bucket/``), by key, a page per request.

        The keys' order is the store's, that of their UTF-8 bytes. Raises :class:`~maskscore.errors.JobError`:
        ``image_not_found`` (no such bucket), ``image_forbidden``, ``uri_invalid``, ``storage_unavailable`` (transient).
        """
        bucket, slash, prefix = uri.removeprefix("s3://").partition("/")
        if not uri.startswith("s3://") or not bucket or not slash or (prefix and not prefix.endswith("/")):
            raise JobError(FailureCode.URI_INVALID, f"{uri!r} is not a prefix; write s3://bucket/prefix/.")
        with s3_errors(uri, bucket, "image"):
            for page in self._s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield ListedObject(item["Key"].removeprefix(prefix), int(item["Size"]), item.get("ETag"))

    def check_output(self, uri: str) -> None:
        """Raise as :meth:`write` does where nothing may be written below ``s3://bucket/prefix/`` or ``file:///folder/``.

        The folder must be there: on another machine than its user's, it is not.
        """
        if _is_s3(uri):
            self._writable(f"{uri}_")
            return
        root, below = check_writable(uri, self._result_roots)
        if not (root / below).is_dir():
            raise JobError(
                FailureCode.RESULT_NOT_STORED,
                f"There is no folder {root / below} on the machine of the worker, {socket.gethostname()}. Make it, or "
                "mount it there.",
            )

    def write(self, uri: str, data: bytes, *, content_type: str) -> str:
        """Write an object, or a file with the folders that lead to it, and return its ETag.

        Raises :class:`~maskscore.errors.JobError`: ``result_forbidden``, ``result_not_stored``, ``uri_invalid``,
        ``storage_unavailable`` (transient).
        """
        if not _is_s3(uri):
            return write_file(uri, data, self._result_roots)
        bucket, key = self._writable(uri)
        with s3_errors(uri, bucket, "result"):
            return self._s3.put(bucket, key, data, content_type=content_type)

    def write_new(self, uri: str, data: bytes, *, content_type: str, replaces: Callable[[bytes], None]) -> str:
        """Write an object where there is none yet, and return its ETag; raises as :meth:`write` does.

        The bytes of an existing object are passed to ``replaces``, which raises if that object must stay. A store that
        does not support ``If-None-Match`` overwrites it.
        """
        if not _is_s3(uri):
            return write_file(uri, data, self._result_roots, replaces=replaces)
        bucket, key = self._writable(uri)
        with s3_errors(uri, bucket, "result"):
            try:
                return self._s3.put(bucket, key, data, content_type=content_type, only_new=True)
            except S3Refusal as error:
                if error_code(error) == "NotImplemented":
                    return self.write(uri, data, content_type=content_type)
                if error_code(error) not in ("PreconditionFailed", "412"):
                    raise
        with s3_errors(uri, bucket, "result"):
            found = self._s3.client().get_object(Bucket=bucket, Key=key)
            with closing(found["Body"]) as body:
                replaces(body.read())
        return self.write(uri, data, content_type=content_type)

    def remove(self, uri: str) -> None:
        """Remove an object, if it is there; raises as :meth:`write` does."""
        if not _is_s3(uri):
            remove_file(uri, self._result_roots)
            return
        bucket, key = self._writable(uri)
        with s3_errors(uri, bucket, "result"):
            self._s3.client().delete_object(Bucket=bucket, Key=key)

    def upload(self, uri: str, path: Path, *, content_type: str) -> None:
        """Write a file of any size as an ``s3://`` object, in parts; raises as :meth:`write` does."""
        bucket, key = self._writable(uri)
        with s3_errors(uri, bucket, "result"):
            try:
                self._s3.client().upload_file(str(path), bucket, key, ExtraArgs={"ContentType": content_type})
            except S3UploadFailedError as error:
                # boto3 wraps what the store answered in an error of another family.
                raise error.__cause__ or error.__context__ or error from None

    def _readable(self, uri: str) -> tuple[str, str]:
        bucket, key = bucket_and_key(uri)
        if not _allowed(bucket, self._buckets):
            raise JobError(
                FailureCode.URI_NOT_ALLOWED,
                f"{uri}: jobs may not read the bucket {bucket!r}. The worker's MASKSCORE_BUCKETS decides.",
            )
        return bucket, key

    def _writable(self, uri: str) -> tuple[str, str]:
        bucket, key = bucket_and_key(uri)
        if not _allowed(bucket, self._result_buckets):
            raise JobError(
                FailureCode.RESULT_FORBIDDEN,
                f"{uri}: results may not go to the bucket {bucket!r}. The worker's MASKSCORE_RESULT_BUCKETS decides.",
            )
        return bucket, key

    def _read_s3(
        self,
        uri: str,
        what: ObjectRole,
        max_bytes: int,
        *,
        etag: str | None,
        version_id: str | None = None,
        byte_range: tuple[int, int] | None = None,
    ) -> ReceivedObject:
        bucket, key = self._readable(uri)
        with s3_errors(uri, bucket, what):
            received = self._s3.get(
                bucket,
                key,
                etag=etag,
                version_id=version_id,
                byte_range=byte_range,
                check_size=lambda size: check_size(uri, what, size, max_bytes),
            )
        # Not every store knows IfMatch.
        if etag is not None and received.etag is not None and received.etag.strip('"') != etag.strip('"'):
            raise changed(uri, what, etag, received.etag)
        return received


def _is_s3(uri: str) -> bool:
    """Say whether an object is in S3 and not a file; raise ``uri_invalid`` where it is neither."""
    scheme, colon, _ = uri.partition(":")
    if scheme in ("s3", "file"):
        return scheme == "s3"
    raise JobError(
        FailureCode.URI_INVALID,
        f"{uri!r} has the scheme {scheme!r}; s3://bucket/key and file:///path are read."
        if colon
        else f"{uri!r} is not a URI; give s3://bucket/key or file:///path.",
    )


def _allowed(bucket: str, names: Collection[str] | None) -> bool:
    return names is None or bucket in names or "*" in names
