"""Requests for S3 objects: by obstore where it can, else by boto3, whose settings and errors are those of both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import botocore.session

from maskscore.errors import FailureCode, JobError
from maskscore.storage.failures import ATTEMPTS, CUT_OFF, error_code
from maskscore.storage.obstore_client import ObstoreClient, ReceivedObject
from maskscore.storage.s3_clients import S3_ERRORS, S3Refusal, s3_client

__all__ = ["S3Requests"]

_CHUNK = 1 << 20
_CONNECT_TIMEOUT_S = 10.0


class S3Requests:
    """Connections to S3, made when they are first needed; safe to share between threads.

    Parameters
    ----------
    timeout_s: seconds that one request may take to connect, and to wait for each piece of the answer.
    pool_size: connections that boto3 keeps open.

    Every method raises boto3's errors, which :func:`maskscore.storage.failures.s3_errors` translates.
    """

    def __init__(self, *, timeout_s: float, pool_size: int) -> None:
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

    def client(self, signature_version: str | None = None) -> Any:
        """Return boto3's client; raise :class:`~maskscore.errors.JobError` where its settings are wrong."""
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

    def get(
        self,
        bucket: str,
        key: str,
        *,
        etag: str | None,
        version_id: str | None,
        byte_range: tuple[int, int] | None,
        check_size: Callable[[int], None],
    ) -> ReceivedObject:
        """Read an object or its bytes ``[start, end)``; nothing where these begin behind its end.

        ``check_size`` is called with the number of bytes that will come, and again while they come; it may raise.
        """
        conditions = {
            "IfMatch": etag,
            "VersionId": version_id,
            "Range": None if byte_range is None else f"bytes={byte_range[0]}-{byte_range[1] - 1}",
        }
        given = {name: value for name, value in conditions.items() if value is not None}
        return self._by_obstore().get(
            bucket,
            key,
            etag=etag,
            version_id=version_id,
            byte_range=byte_range,
            check_size=check_size,
            by_boto3=lambda: self._get_by_boto3({"Bucket": bucket, "Key": key, **given}, check_size),
        )

    def put(self, bucket: str, key: str, data: bytes, *, content_type: str, only_new: bool = False) -> str:
        """Write an object and return its ETag; ``only_new``: not where there is one already."""
        given = {"Bucket": bucket, "Key": key, "Body": data, "ContentType": content_type}
        if only_new:
            given["IfNoneMatch"] = "*"
        return self._by_obstore().put(
            bucket,
            key,
            data,
            content_type=content_type,
            only_new=only_new,
            by_boto3=lambda: str(self.client().put_object(**given)["ETag"]),
        )

    def _by_obstore(self) -> ObstoreClient:
        self.client()
        assert self._obstore is not None
        return self._obstore

    def _get_by_boto3(self, given: dict[str, str], check_size: Callable[[int], None]) -> ReceivedObject:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self.client().get_object(**given)
            except S3Refusal as error:
                if "Range" not in given or error_code(error) not in ("InvalidRange", "416"):
                    raise
                whole = {name: value for name, value in given.items() if name != "Range"}
                answer = self.client().head_object(**whole)
                return ReceivedObject(b"", int(answer["ContentLength"]), answer.get("ETag"), answer.get("VersionId"))
            try:
                with closing(answer["Body"]) as body:
                    if "Range" in given and "ContentRange" not in answer:
                        raise JobError(
                            FailureCode.STORAGE_UNAVAILABLE,
                            f"The object store sends s3://{given['Bucket']}/{given['Key']} whole where a part of it "
                            "was asked for: it does not know the header Range.",
                            transient=False,
                        )
                    check_size(answer.get("ContentLength", 0))
                    data = b"".join(_limited(body.iter_chunks(_CHUNK), check_size))
                break
            except CUT_OFF:
                if attempt == ATTEMPTS:
                    raise
        size = int(answer["ContentRange"].rpartition("/")[2]) if "Range" in given else len(data)
        return ReceivedObject(data, size, answer.get("ETag"), answer.get("VersionId"))


def _limited(chunks: Iterable[bytes], check_size: Callable[[int], None]) -> Iterator[bytes]:
    """Count the bytes while they come, since an answer need not state its length."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        check_size(size)
        yield chunk
