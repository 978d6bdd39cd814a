"""``sentinel://`` URLs: parsing, kombu's view of them, and errors that show no secret."""

from __future__ import annotations

from typing import Any

import pytest

from maskscore.broker.celery_queue import make_app
from maskscore.broker.redaction import public_url
from maskscore.broker.redis_connection import connect
from maskscore.broker.sentinel import parse_sentinel_url
from maskscore.errors import SettingsError
from maskscore.settings import ClientSettings

URL = "sentinel://me:p%2Fw%40@a:26380,[::1],b/4?master=m.1&sentinel_username=su&sentinel_password=s%26p"


def test_a_url_says_where_to_ask_and_what_to_present() -> None:
    address = parse_sentinel_url(URL)
    assert address is not None
    assert address.hosts == (("a", 26380), ("::1", 26379), ("b", 26379))
    assert (address.master, address.db, address.username, address.password) == ("m.1", 4, "me", "p/w@")
    assert (address.sentinel_username, address.sentinel_password) == ("su", "s&p")
    assert "p/w@" not in repr(address)
    assert "s&p" not in repr(address)
    assert public_url(URL) == "sentinel://a:26380,[::1]:26379,b:26379/4?master=m.1"


def test_other_schemes_are_not_sentinels() -> None:
    assert parse_sentinel_url("rediss://:x@host:6379/0") is None
    assert parse_sentinel_url("nothing") is None


def test_kombu_finds_every_sentinel_with_the_credentials() -> None:
    connection: Any = make_app(ClientSettings(redis_url=URL)).connection_for_write()
    seen = []
    for _ in connection.alt:
        seen.append((connection.hostname, connection.port, connection.userid, connection.password))
        assert connection.virtual_host == "4"
        connection.maybe_switch_next()
    assert sorted(seen) == [(host, port, "me", "p/w@") for host, port in (("::1", 26379), ("a", 26380), ("b", 26379))]
    assert connection.transport_options["master_name"] == "m.1"
    assert connection.transport_options["sentinel_kwargs"]["password"] == "s&p"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sentinel://:secret@h:1/0", "name the master"),
        ("sentinel://:secret@/0?master=m", "names no Sentinel"),
        ("sentinel://:sec/ret@h:1/0?master=m", "percent-encoded"),
        ("sentinel://:secret@h:1/x?master=m", "number of a database"),
        ("sentinel://:secret@h:port/0?master=m", "not HOST:PORT"),
        ("sentinel://:secret@h:70000/0?master=m", "not HOST:PORT"),
        ("sentinel://:secret@h/0?master=m&sentinl_password=secret", "'sentinl_password'"),
        ("sentinels://:secret@h/0?master=m", "without TLS only"),
        ("redis://:sec/ret@h:6379/0", "%2F"),
    ],
)
def test_a_url_that_cannot_be_used_is_explained_without_its_secrets(url: str, words: str) -> None:
    with pytest.raises(SettingsError, match="MASKSCORE_REDIS_URL cannot be used") as caught:
        connect(ClientSettings(redis_url=url))
    assert words in str(caught.value)
    assert "sec" not in str(caught.value)
