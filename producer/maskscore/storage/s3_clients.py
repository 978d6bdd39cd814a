"""Clients of S3 and the families of their errors; boto3 is imported by this district alone."""

from __future__ import annotations

from typing import Any, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

__all__ = [
    "S3_ERRORS",
    "S3_UNREACHABLE",
    "S3Refusal",
    "arrow_s3_filesystem",
    "credentials_source",
    "private_s3_client",
    "s3_client",
]

S3Refusal = ClientError
"""The store has answered with an error; ``response`` holds it."""
S3_UNREACHABLE: Final = (ConnectionError, HTTPClientError)
"""The store has not answered."""
S3_ERRORS: Final = (BotoCoreError, ClientError)
"""Whatever a call of a client may raise."""


def s3_client(
    *,
    timeout_s: float,
    attempts: int,
    connect_timeout_s: float | None = None,
    pool_size: int = 10,
    signature_version: str | None = None,
    session: botocore.session.Session | None = None,
) -> Any:
    """Return a boto3 client with the address, region and credentials of boto3's own sources.

    ``timeout_s`` is for each piece of an answer, and for connecting where there is no ``connect_timeout_s``;
    ``signature_version`` is botocore's, where its own choice will not do; ``session`` is one to share, which no other
    thread uses. Raises :class:`ValueError` for an unusable ``AWS_ENDPOINT_URL``, and one of :data:`S3_ERRORS` for other
    wrong settings.
    """
    config = Config(
        connect_timeout=timeout_s if connect_timeout_s is None else connect_timeout_s,
        read_timeout=timeout_s,
        max_pool_connections=pool_size,
        signature_version=signature_version,
        retries={"mode": "standard", "total_max_attempts": attempts},
        # Stores other than Amazon's do not all know the checksums that newer releases send by default.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    # A session of its own: boto3's default one is not safe to share between threads while it starts.
    return boto3.session.Session(botocore_session=session).client("s3", config=config)


def private_s3_client(endpoint_url: str, *, access_key: str, secret_key: str, region: str, timeout_s: float) -> Any:
    """Return a boto3 client of one server on this machine, which tries once and uses no proxy."""
    config = Config(
        connect_timeout=timeout_s,
        read_timeout=timeout_s,
        retries={"max_attempts": 0},
        proxies={},
        s3={"addressing_style": "path"},
    )
    return boto3.session.Session(
        aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name=region
    ).client("s3", endpoint_url=endpoint_url, config=config)


def credentials_source() -> str | None:
    """Return where boto3 finds credentials, in its own words (``env``); ``None`` where it finds none.

    Raises one of :data:`S3_ERRORS` where its settings are wrong.
    """
    credentials = boto3.session.Session().get_credentials()
    return None if credentials is None else str(credentials.method)


def arrow_s3_filesystem() -> Any:
    """Return a :class:`pyarrow.fs.S3FileSystem` with boto3's address, region and present credentials.

    Credentials that end are not renewed. Raises one of :data:`S3_ERRORS` where boto3's settings are wrong, and
    ModuleNotFoundError where pyarrow is not installed.
    """
    from pyarrow.fs import S3FileSystem

    session = boto3.session.Session()
    client = session.client("s3")
    found = session.get_credentials()
    given: dict[str, Any] = {"anonymous": True}
    if found is not None:
        now = found.get_frozen_credentials()
        given = {"access_key": now.access_key, "secret_key": now.secret_key, "session_token": now.token}
    scheme, _, address = client.meta.endpoint_url.partition("://")
    if address.endswith("amazonaws.com"):
        # The regional name, which Arrow finds itself.
        return S3FileSystem(region=client.meta.region_name, **given)
    return S3FileSystem(endpoint_override=address, scheme=scheme, region=client.meta.region_name, **given)
