"""``sentinel://`` URLs: a Redis whose master is asked of Redis Sentinel, and followed when it changes.

    sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/DB]?master=NAME[&sentinel_password=…]

The credentials before ``@`` are those of Redis itself; Sentinel's own are ``sentinel_username`` and
``sentinel_password``. Special characters of all of them are percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from maskscore.errors import SettingsError

__all__ = ["SentinelAddress", "parse_sentinel_url"]

_SCHEME: Final = "sentinel"
_DEFAULT_PORT: Final = 26379
_FORM: Final = "sentinel://:password@host1:26379,host2:26379/0?master=NAME&sentinel_password=..."
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\s]+)(:(?P<port>[0-9]{1,5}))?")
_KNOWN: Final = {"master", "sentinel_username", "sentinel_password"}


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """What a ``sentinel://`` URL says: where to ask, for which master, and what to present where."""

    hosts: tuple[tuple[str, int], ...]
    master: str
    db: int
    username: str | None
    password: str | None = field(repr=False)
    sentinel_username: str | None
    sentinel_password: str | None = field(repr=False)

    @property
    def public_url(self) -> str:
        """The URL without its credentials, fit for a log."""
        hosts = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.hosts)
        return f"{_SCHEME}://{hosts}/{self.db}?master={quote(self.master, safe='')}"

    @property
    def kombu_url(self) -> str:
        """The URL as kombu reads it: one per Sentinel, each with the credentials, since any may be tried first."""
        credentials = ""
        if self.username or self.password:
            credentials = f"{quote(self.username or '', safe='')}:{quote(self.password or '', safe='')}@"
        return ";".join(f"{_SCHEME}://{credentials}{_bracketed(host)}:{port}/{self.db}" for host, port in self.hosts)

    def kombu_options(self, timeout_s: float) -> dict[str, Any]:
        """Return the transport options that kombu needs beside the URL; ``timeout_s`` is for asking a Sentinel."""
        return {"master_name": self.master, "sentinel_kwargs": self._sentinel_kwargs(timeout_s)}

    def client(self, timeout_s: float, **options: Any) -> redis.Redis:
        """Return a client of whatever is the master whenever it connects; ``options`` are redis-py's for that."""
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
            self.hosts, sentinel_kwargs=self._sentinel_kwargs(timeout_s)
        )
        client: redis.Redis = sentinel.master_for(
            self.master, db=self.db, username=self.username, password=self.password, **options
        )
        return client

    def sentinel_clients(self, timeout_s: float) -> Iterator[tuple[tuple[str, int], redis.Redis]]:
        """Yield each Sentinel's host and port with a client of that Sentinel itself."""
        for host, port in self.hosts:
            yield (host, port), redis.Redis(host, port, **self._sentinel_kwargs(timeout_s))

    def _sentinel_kwargs(self, timeout_s: float) -> dict[str, Any]:
        return {
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "socket_keepalive": True,
            "username": self.sentinel_username,
            "password": self.sentinel_password,
            # The next Sentinel is asked instead; redis-py would try a dead one for seconds, at every connection.
            "retry": Retry(NoBackoff(), 0),
        }


def parse_sentinel_url(url: str) -> SentinelAddress | None:
    """Return what a ``sentinel://`` URL says; ``None`` for a URL of another scheme.

    Raises :class:`~maskscore.errors.SettingsError` that does not show the URL, since it may hold a password.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or not scheme.startswith(_SCHEME):
        return None
    if scheme != _SCHEME:
        raise _unusable(f"the scheme {scheme!r} is not known; Sentinel is reached without TLS only")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _unusable("its hosts cannot be read") from None
    if "@" in parts.path + parts.query + parts.fragment:
        # Of a password that is not percent-encoded, a part would be taken for a host or an option, and shown.
        raise _unusable("there is an '@' after its hosts; '/', '@', '#' and '?' in a password are percent-encoded")
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = sorted(options.keys() - _KNOWN)
    if unknown:
        raise _unusable(f"there is no option {', '.join(map(repr, unknown))}")
    if not options.get("master"):
        raise _unusable("it does not name the master with ?master=NAME")
    database = parts.path.strip("/") or "0"
    if not re.fullmatch("[0-9]{1,5}", database):
        raise _unusable("what follows the hosts is not the number of a database")
    return SentinelAddress(
        hosts=tuple(_host(text) for text in hosts.split(",") if text) or _no_hosts(),
        master=options["master"],
        db=int(database),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
    )


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found["port"] or _DEFAULT_PORT) if found else 0
    if found is None or not 0 < port < 65536:
        raise _unusable("one of its hosts is not HOST:PORT")
    return found["host"].strip("[]"), port


def _no_hosts() -> tuple[tuple[str, int], ...]:
    raise _unusable("it names no Sentinel")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _unusable(why: str) -> SettingsError:
    return SettingsError(f"MASKSCORE_REDIS_URL cannot be used: {why}. Write {_FORM}")
