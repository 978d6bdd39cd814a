"""Reads and writes objects by URI, only in allowed buckets and folders and only up to a size."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
from boto3.exceptions import S3UploadFailedError

from maskscore.errors import FailureCode, JobError
from maskscore.storage.failures import ATTEMPTS, CODES, CUT_OFF, ObjectRole, changed, check_size, error_code, s3_errors
from maskscore.storage.files import file_etag, open_file
from maskscore.storage.obstore_client import ObstoreClient, ReceivedObject
from maskscore.storage.s3_clients import S3_ERRORS, S3Refusal, s3_client
from maskscore.storage.uris import bucket_and_key

__all__ = ["FetchedObject", "FetchedRange", "ListedObject", "Objects"]

_CHUNK = 1 << 20
_CONNECT_TIMEOUT_S = 10.0


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
        self._timeout_s = timeout_s
        self._pool_size = pool_size
        # By the version of the signature that was asked for.
        self._clients: dict[str | None, Any] = {}
        self._obstore: ObstoreClient | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()
            self._obstore = None

    def read(
        self, uri: str, *, what: ObjectRole, max_bytes: int, etag: str | None = None, version_id: str | None = None
    ) -> FetchedObject:
        """Read an object whole.

        ``what`` is the object's role, which decides the codes. ``etag`` refuses any other content; ``version_id`` reads
        one version in a versioned bucket. Raises :class:`~maskscore.errors.JobError`: ``…_not_found``, ``…_forbidden``,
        ``…_changed``, ``…_too_large``, ``uri_not_allowed``, ``uri_invalid``, ``storage_unavailable`` (transient).
        """
        if _is_s3(uri):
            received = self._read_s3(uri, what, max_bytes, etag, version_id)
            return FetchedObject(received.data, received.etag, received.version_id)
        data, found, _ = self._read_file(uri, what, max_bytes, etag)
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
            received = self._read_s3(uri, what, length, etag, None, (start, start + length))
            return FetchedRange(received.data, received.etag, received.size)
        data, found, size = self._read_file(uri, what, length, etag, start)
        return FetchedRange(data, found, size)

    def etag(self, uri: str, *, what: ObjectRole, version_id: str | None = None) -> str:
        """Return an object's present ETag without reading it; raises as :meth:`read` does."""
        if uri.startswith("file:"):
            with open_file(uri, what, self._file_roots) as (_, status):
                return file_etag(status)
        bucket, key = self._readable(uri)
        given = {} if version_id is None else {"VersionId": version_id}
        with s3_errors(uri, bucket, what):
            answer = self._s3().head_object(Bucket=bucket, Key=key, **given)
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
            client = self._s3(signature_version="s3v4")
            parameters = {"Bucket": bucket, "Key": key, **given}
            return str(client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=expires_s))

    def download(self, uri: str, path: Path, *, what: ObjectRole) -> None:
        """Write an ``s3://`` object of any size into a file; raises as :meth:`read` does."""
        bucket, key = self._readable(uri)
        with s3_errors(uri, bucket, what):
            self._s3().download_file(bucket, key, str(path))

    def list(self, uri: str) -> Iterator[ListedObject]:
        """Yield the objects under ``s3://bucket/prefix/`` (or ``s3://bucket/``), by key, a page per request.

        The keys' order is the store's, that of their UTF-8 bytes. Raises :class:`~maskscore.errors.JobError`:
        ``image_not_found`` (no such bucket), ``image_forbidden``, ``uri_invalid``, ``storage_unavailable`` (transient).
        """
        bucket, slash, prefix = uri.removeprefix("s3://").partition("/")
        if not uri.startswith("s3://") or not bucket or not slash or (prefix and not prefix.endswith("/")):
            raise JobError(FailureCode.URI_INVALID, f"{uri!r} is not a prefix; write s3://bucket/prefix/.")
        with s3_errors(uri, bucket, "image"):
            for page in self._s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield ListedObject(item["Key"].removeprefix(prefix), int(item["Size"]), item.get("ETag"))

    def write(self, uri: str, data: bytes, *, content_type: str) -> str:
        """Write an ``s3://`` object and return its ETag.

        Raises :class:`~maskscore.errors.JobError`: ``result_forbidden``, ``result_not_stored``, ``uri_invalid``,
        ``storage_unavailable`` (transient).
        """
        bucket, key = self._writable(uri)
        with s3_errors(uri, bucket, "result"):
            return self._put(bucket, key, data, content_type)

    def write_new(self, uri: str, data: bytes, *, content_type: str, replaces: Callable[[bytes], None]) -> str:
        """Write an ``s3://`` object where there is none yet, and return its ETag; raises as :meth:`write` does.

        The bytes of an existing object are passed to ``replaces``, which raises if that object must stay. A store that
        does not support ``If-None-Match`` overwrites it.
        """
        bucket, key = self._writable(uri)
        with s3_errors(uri, bucket, "result"):
            try:
                return self._put(bucket, key, data, content_type, IfNoneMatch="*")
            except S3Refusal as error:
                if error_code(error) == "NotImplemented":
                    return self.write(uri, data, content_type=content_type)
                if error_code(error) not in ("PreconditionFailed", "412"):
                    raise
        with s3_errors(uri, bucket, "result"):
            found = self._s3().get_object(Bucket=bucket, Key=key)
            with closing(found["Body"]) as body:
                replaces(body.read())
        return self.write(uri, data, content_type=content_type)

    def upload(self, uri: str, path: Path, *, content_type: str) -> None:
        """Write a file of any size as an ``s3://`` object, in parts; raises as :meth:`write` does."""
        bucket, key = self._writable(uri)
        with s3_errors(uri, bucket, "result"):
            try:
                self._s3().upload_file(str(path), bucket, key, ExtraArgs={"ContentType": content_type})
            except S3UploadFailedError as error:
                # boto3 wraps what the store answered in an error of another family.
                raise error.__cause__ or error.__context__ or error from None

    def _s3(self, signature_version: str | None = None) -> Any:
        with self._lock:
            if signature_version not in self._clients:
                try:
                    session = botocore.session.get_session()
                    client = s3_client(
                        timeout_s=self._timeout_s,
                        attempts=ATTEMPTS,
                        connect_timeout_s=min(self._timeout_s, _CONNECT_TIMEOUT_S),
                        pool_size=self._pool_size,
                        signature_version=signature_version,
                        session=session,
                    )
                except (ValueError, *S3_ERRORS) as error:
                    raise JobError(
                        FailureCode.STORAGE_UNAVAILABLE,
                        f"The object store cannot be asked: {error}. Set AWS_ENDPOINT_URL to http://host:port or "
                        "https://host, and look at boto3's other settings.",
                        transient=False,
                        of_worker=True,
                    ) from error
                self._clients[signature_version] = client
                if signature_version is None:
                    self._obstore = ObstoreClient(
                        client,
                        session,
                        timeout_s=self._timeout_s,
                        connect_timeout_s=min(self._timeout_s, _CONNECT_TIMEOUT_S),
                    )
            return self._clients[signature_version]

    def _by_obstore(self) -> ObstoreClient:
        self._s3()
        assert self._obstore is not None
        return self._obstore

    def _put(self, bucket: str, key: str, data: bytes, content_type: str, **conditions: str) -> str:
        def by_boto3() -> str:
            answer = self._s3().put_object(Bucket=bucket, Key=key, Body=data, ContentType=content_type, **conditions)
            return str(answer["ETag"])

        return self._by_obstore().put(
            bucket, key, data, content_type=content_type, only_new=bool(conditions), by_boto3=by_boto3
        )

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
        etag: str | None,
        version_id: str | None,
        byte_range: tuple[int, int] | None = None,
    ) -> ReceivedObject:
        """Read an object or its bytes ``[start, end)``: by obstore where it can, else by boto3."""
        bucket, key = self._readable(uri)

        def by_boto3() -> ReceivedObject:
            with s3_errors(uri, bucket, what):
                return self._ask_boto3(uri, what, max_bytes, etag, version_id, byte_range)

        received = self._by_obstore().get(
            bucket,
            key,
            etag=etag,
            version_id=version_id,
            byte_range=byte_range,
            check_size=lambda size: check_size(uri, what, size, max_bytes),
            by_boto3=by_boto3,
        )
        # Not every store knows IfMatch.
        if etag is not None and received.etag is not None and received.etag.strip('"') != etag.strip('"'):
            raise changed(uri, what, etag, received.etag)
        return received

    def _ask_boto3(
        self,
        uri: str,
        what: ObjectRole,
        max_bytes: int,
        etag: str | None,
        version_id: str | None,
        byte_range: tuple[int, int] | None,
    ) -> ReceivedObject:
        bucket, key = bucket_and_key(uri)
        conditions = {
            "IfMatch": etag,
            "VersionId": version_id,
            "Range": None if byte_range is None else f"bytes={byte_range[0]}-{byte_range[1] - 1}",
        }
        given = {name: value for name, value in conditions.items() if value is not None}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._s3().get_object(Bucket=bucket, Key=key, **given)
            except S3Refusal as error:
                if byte_range is None or error_code(error) not in ("InvalidRange", "416"):
                    raise
                # It begins after the object's last byte.
                del given["Range"]
                answer = self._s3().head_object(Bucket=bucket, Key=key, **given)
                return ReceivedObject(b"", int(answer["ContentLength"]), answer.get("ETag"), answer.get("VersionId"))
            try:
                with closing(answer["Body"]) as body:
                    if byte_range is not None and "ContentRange" not in answer:
                        raise JobError(
                            FailureCode.STORAGE_UNAVAILABLE,
                            f"The object store sends {uri} whole where a part was asked for: it does not know the "
                            "header Range.",
                            transient=False,
                        )
                    check_size(uri, what, answer.get("ContentLength", 0), max_bytes)
                    data = b"".join(_limited(body.iter_chunks(_CHUNK), uri, what, max_bytes))
                break
            except CUT_OFF:
                if attempt == ATTEMPTS:
                    raise
        size = len(data) if byte_range is None else int(answer["ContentRange"].rpartition("/")[2])
        return ReceivedObject(data, size, answer.get("ETag"), answer.get("VersionId"))

    def _read_file(
        self, uri: str, what: ObjectRole, max_bytes: int, etag: str | None, start: int | None = None
    ) -> tuple[bytes, str, int]:
        """Return a file's bytes (from ``start`` on), what stands for its ETag, and its size."""
        with open_file(uri, what, self._file_roots) as (file, status):
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


def _limited(chunks: Iterable[bytes], uri: str, what: ObjectRole, max_bytes: int) -> Iterator[bytes]:
    """Count the bytes while they come, since an answer need not state its length."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        check_size(uri, what, size, max_bytes)
        yield chunk
