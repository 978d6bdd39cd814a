"""Requests for S3 objects by obstore, which take a fifth of boto3's processor time, most of it outside Python's lock.

Only answers that are as expected are used. For everything else (an error, a setting that obstore does not know, obstore
not being installed) the caller asks boto3, which knows retries, redirects and why it failed. So the errors of a read or
write do not depend on obstore.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.utils import get_environ_proxies

if TYPE_CHECKING:
    from obstore.store import S3Store

__all__ = ["ObstoreClient", "ReceivedObject"]

log = logging.getLogger(__name__)

# Each bucket has connections of its own.
_BUCKETS = 16
_CHUNK = 1 << 20
# botocore renews credentials ten minutes before they end at the latest; obstore, five minutes before this.
_CREDENTIALS_FOR = timedelta(minutes=10)
# After so many requests in which obstore failed and boto3 did not, boto3 is asked alone for a while: the bucket may be
# in another region, where boto3 follows.
_FAILURES = 3
_REST_S = 60.0


@dataclass(frozen=True, slots=True)
class ReceivedObject:
    """An object's bytes, or a part of them; ``size`` is the whole object's."""

    data: bytes
    size: int
    etag: str | None
    version_id: str | None


class ObstoreClient:
    """Reads and writes S3 objects where obstore can; safe to share between threads.

    Parameters
    ----------
    client, session: a boto3 client and its session, whose address, region and credentials are used.
    timeout_s, connect_timeout_s: seconds to wait for each piece of an answer, and to connect.
    """

    def __init__(
        self, client: Any, session: botocore.session.Session, *, timeout_s: float, connect_timeout_s: float
    ) -> None:
        self._client = client
        self._session = session
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._store = lru_cache(maxsize=_BUCKETS)(self._open_store)
        # By bucket: how often in succession boto3 succeeded where obstore did not, and when last.
        self._failures: dict[str, tuple[int, float]] = {}

    def get(
        self,
        bucket: str,
        key: str,
        *,
        etag: str | None,
        version_id: str | None,
        byte_range: tuple[int, int] | None,
        check_size: Callable[[int], None],
        by_boto3: Callable[[], ReceivedObject],
    ) -> ReceivedObject:
        """Read an object or its bytes ``[start, end)``, with ``by_boto3`` where obstore cannot.

        ``check_size`` is called with the number of bytes that will come, and again while they come; it may raise.
        """
        store = self._usable(bucket, key)
        if store is None:
            return by_boto3()
        received = _get(store, key, etag, version_id, byte_range, check_size)
        if received is None:
            received = by_boto3()
            # Of bytes behind the end of an object, obstore has an error and boto3 an answer.
            if received.data:
                self._failed(bucket)
        else:
            self._failures.pop(bucket, None)
        return received

    def put(
        self, bucket: str, key: str, data: bytes, *, content_type: str, only_new: bool, by_boto3: Callable[[], str]
    ) -> str:
        """Write an object in one request, with ``by_boto3`` where obstore cannot, and return its ETag."""
        store = self._usable(bucket, key)
        if store is None:
            return by_boto3()
        etag = _put(store, key, data, content_type, only_new=only_new)
        if etag is None:
            etag = by_boto3()
            self._failed(bucket)
        else:
            self._failures.pop(bucket, None)
        return etag

    def _failed(self, bucket: str) -> None:
        failures, _ = self._failures.get(bucket, (0, 0.0))
        self._failures[bucket] = (failures + 1, time.monotonic())

    def _usable(self, bucket: str, key: str) -> S3Store | None:
        # obstore's calls return for no signal: in the main thread Ctrl-C would wait as long as a store that is silent.
        if threading.current_thread() is threading.main_thread():
            return None
        # obstore takes slashes at the ends off, and refuses empty parts and control characters.
        if not key.isprintable() or "" in key.split("/"):
            return None
        failures, at = self._failures.get(bucket, (0, 0.0))
        if failures >= _FAILURES and time.monotonic() < at + _REST_S:
            return None
        try:
            return self._store(bucket)
        except Exception as error:
            log.info("bucket %s is left to boto3 for a while, since obstore cannot ask it: %s", bucket, error)
            self._failures[bucket] = (_FAILURES, time.monotonic())
            return None

    def _open_store(self, bucket: str) -> S3Store | None:
        try:
            from obstore.store import S3Store
        except ImportError:
            return None
        # boto3 says where the bucket is: its settings know more of addresses than obstore's.
        url = str(self._client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "k"}))
        endpoint = url.partition("?")[0].removesuffix("/k")
        # boto3 trusts a given bundle of certificates alone, and obstore the usual ones, too. Each reads the settings of
        # proxies in a way of its own.
        ca_bundle = self._session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
        if (ca_bundle and endpoint.startswith("https:")) or get_environ_proxies(endpoint):
            return None
        credentials = self._session.get_credentials()
        if credentials is None:
            return None

        def current() -> dict[str, Any]:
            frozen = credentials.get_frozen_credentials()
            return {
                "access_key_id": frozen.access_key,
                "secret_access_key": frozen.secret_key,
                "token": frozen.token or None,
                "expires_at": datetime.now(UTC) + _CREDENTIALS_FOR,
            }

        # What is not given here, obstore takes from the environment, where some variables are of its own.
        config: Any = {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
        return S3Store(
            bucket,
            config=config,
            region=self._client.meta.region_name,
            virtual_hosted_style_request=True,
            skip_signature=False,
            request_payer=False,
            credential_provider=current,  # type: ignore[arg-type]
            client_options={
                "allow_http": endpoint.startswith("http:"),
                "allow_invalid_certificates": False,
                "connect_timeout": timedelta(seconds=self._connect_timeout_s),
                "read_timeout": timedelta(seconds=self._timeout_s),
                # For the whole answer, however large it is.
                "timeout": timedelta(days=1),
            },
            retry_config={"max_retries": 0},
        )


def _get(
    store: S3Store,
    key: str,
    etag: str | None,
    version_id: str | None,
    byte_range: tuple[int, int] | None,
    check_size: Callable[[int], None],
) -> ReceivedObject | None:
    import obstore

    options: dict[str, Any] = {"if_match": etag, "version": version_id, "range": byte_range}
    given = {name: value for name, value in options.items() if value is not None}
    chunks: list[bytes] = []
    length = 0
    try:
        answer = obstore.get(store, key, options=given)  # type: ignore[arg-type]
        meta, (start, end) = answer.meta, answer.range
        stream = iter(answer.stream(_CHUNK))
    except Exception:
        return None
    check_size(end - start)
    while True:
        try:
            chunk = next(stream, None)
        except Exception:
            return None
        if chunk is None:
            break
        length += len(chunk)
        check_size(length)
        chunks.append(bytes(chunk))
    wanted = (0, meta["size"]) if byte_range is None else (byte_range[0], min(byte_range[1], meta["size"]))
    if (start, end) != wanted or length != end - start:
        return None
    return ReceivedObject(b"".join(chunks), meta["size"], meta["e_tag"], meta["version"])


def _put(store: S3Store, key: str, data: bytes, content_type: str, *, only_new: bool) -> str | None:
    import obstore

    try:
        answer = obstore.put(
            store,
            key,
            data,
            attributes={"Content-Type": content_type},
            mode="create" if only_new else "overwrite",
            use_multipart=False,
        )
    except Exception:
        return None
    return answer["e_tag"]
