"""No part of a password is shown, whatever the URL around it looks like."""

from __future__ import annotations

import pytest
import redis

from maskscore.broker.celery_queue import make_app
from maskscore.broker.redaction import public_url, redacted
from maskscore.broker.redis_connection import connect, redis_reason
from maskscore.errors import SettingsError
from maskscore.settings import ClientSettings
from maskscore.storage.failures import s3_errors

BROKEN = [
    "redis://:hunter2@S3CRET/tail@127.0.0.1:1/0",
    "redis://:hunter2/S3CRET@127.0.0.1:1/0",
    "rediss://me:hunter2#S3CRET@127.0.0.1:1/0",
    "redis://:123?S3CRET@127.0.0.1:1/0",
    "redis://:hunter2/S3CRET",
    "redis://:hunter2\u2100S3CRET@127.0.0.1:1/0",
    "redis://[hunter2@S3CRET/tail@127.0.0.1:1/0",
    "sentinel://:hunter2@S3CRET/tail@127.0.0.1:1/0?master=m",
    "sentinel://:hunter2?S3CRET@127.0.0.1:1/0?master=m",
    "sentinel://:hunter2&S3CRET=1/@127.0.0.1:1/0?master=m",
    "sentinel://[hunter2@127.0.0.1:1/0?master=m",
    "hunter2@S3CRET",
    "redis+hunter2://S3CRET",
]


def shows_a_secret(text: str) -> bool:
    return any(part in text.lower() for part in ("hunter", "s3cret", "tail"))


@pytest.mark.parametrize("url", BROKEN)
def test_a_url_that_does_not_parse_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="MASKSCORE_REDIS_URL") as caught:
        connect(ClientSettings(redis_url=url))
    error: BaseException | None = caught.value
    while error is not None:
        assert not shows_a_secret(str(error))
        error = None if error.__suppress_context__ else error.__context__


@pytest.mark.parametrize("url", BROKEN[:-1])
def test_a_url_that_does_not_parse_is_shown_without_what_may_be_secret(url: str) -> None:
    assert not shows_a_secret(public_url(url)), public_url(url)
    assert not shows_a_secret(redacted(f"cannot reach {url}: no such host")) or "@" not in url or "//" not in url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:hunter2@Host:6379/0?password=hunter2", "redis://Host:6379/0"),
        ("rediss://:hunter2@[::1]:6379/1", "rediss://[::1]:6379/1"),
        ("redis://:p%40hunter2@a@host", "redis://host"),
        ("unix:///var/run/redis.sock?db=1", "unix:///var/run/redis.sock"),
        ("https://key:hunter2@s3.internal", "https://s3.internal"),
        ("redis://:hunter2@S3CRET/tail@127.0.0.1:1/0", "redis://***@127.0.0.1:1/0"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert public_url(url) == shown


def test_a_database_that_is_no_number_is_refused_and_not_taken_for_0() -> None:
    with pytest.raises(SettingsError, match="not the number of a database"):
        connect(ClientSettings(redis_url="redis://127.0.0.1:1/seven"))
    connect(ClientSettings(redis_url="redis://127.0.0.1:1/7/"))


def test_texts_of_others_lose_credentials_and_keep_what_is_no_url_of_a_server() -> None:
    for said in (
        "consumer: Cannot connect to redis://:hunter2@s3cret/tail@h:6379/0: timed out",
        "sentinel://:hunter2@h1:1/0;sentinel://:s3cret@h2:1/0",
        "[['redis://:hunter2@h'], 'https://k:s3cret@h']",
        "unknown command 'AUTH', with args beginning with: 'default' 'hunter2' ",
        "unknown command `HELLO`, with args beginning with: `3` `AUTH` `s3cret`",
    ):
        assert not shows_a_secret(redacted(said)), redacted(said)
    for harmless in ("s3://photos/a@2x.png", "https://h/a@b", "me@example.org", "file:///x/@eaDir/a.png"):
        assert redacted(f"no object {harmless} here") == f"no object {harmless} here"


def test_what_redis_and_the_store_say_is_shown_without_passwords() -> None:
    echoed = redis.ResponseError("unknown command 'AUTH', with args beginning with: 'hunter2'")
    assert not shows_a_secret(redis_reason(echoed))
    from botocore.exceptions import EndpointConnectionError

    from maskscore.errors import JobError

    with pytest.raises(JobError) as caught, s3_errors("s3://b/a", "b", "image"):
        raise EndpointConnectionError(endpoint_url="http://key:hunter2@s3.internal:9000/b")
    assert not shows_a_secret(str(caught.value))


@pytest.mark.parametrize("url", ["redis://:hunter2@h/0", "sentinel://:hunter2@h1:1,h2:2/0?master=m"])
def test_settings_and_connections_do_not_show_it(url: str) -> None:
    settings = ClientSettings(redis_url=url)
    assert not shows_a_secret(repr(settings))
    connection = make_app(settings).connection_for_write()
    assert not shows_a_secret(f"{connection!r} {connection.as_uri()}")
