"""Connections to Redis, the same way on both sides, and what its errors mean to a caller."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from maskscore.errors import ServiceUnavailable, SettingsError
from maskscore.redaction import public_url, redacted
from maskscore.sentinel import parse_sentinel_url
from maskscore.settings import ClientSettings

__all__ = ["KEEPALIVE", "connect", "redis_errors", "redis_reason", "will_pass"]


# A peer that vanished without a word is noticed after a minute; the system's own default is two hours.
_PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
KEEPALIVE: Final[dict[str, Any]] = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value for name, value in _PROBES.items() if hasattr(socket, name)
    },
}


def connect(settings: ClientSettings) -> redis.Redis:
    """Return a Redis client with timeouts and health checks; it connects at the first command.

    With a ``sentinel://`` URL it is the master's, and follows when another Redis becomes the master. Raises
    :class:`~maskscore.errors.SettingsError` for a URL that cannot be used.
    """
    options: dict[str, Any] = {
        "socket_timeout": settings.redis_timeout_s,
        "socket_connect_timeout": settings.redis_timeout_s,
        **KEEPALIVE,
        "health_check_interval": 25,
        # redis-py's own default goes lost with `from_url`: without one, a connection that broke while it was idle would
        # fail the next command although Redis is there. Every command of ours may be sent twice.
        "retry": Retry(ConstantBackoff(0.1), 1),
    }
    sentinel = parse_sentinel_url(settings.redis_url)
    if sentinel:
        return sentinel.client(settings.redis_timeout_s, **options)
    _check_url(settings.redis_url)
    try:
        return redis.Redis.from_url(settings.redis_url, **options)
    except ValueError as error:
        raise SettingsError(f"MASKSCORE_REDIS_URL cannot be used: {redacted(str(error))}") from None


def will_pass(error: redis.RedisError) -> bool:
    """Whether the same command may succeed later: Redis is away, loading, full, not writable or no master just now."""
    if isinstance(
        error,
        redis.ConnectionError | redis.TimeoutError | redis.exceptions.OutOfMemoryError | redis.exceptions.ReadOnlyError,
    ):
        return not isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError)
    return str(error).startswith(("MISCONF", "MASTERDOWN", "NOREPLICAS", "UNBLOCKED", "CLUSTERDOWN", "TRYAGAIN"))


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
        wrong = None
    except ValueError:
        # Python's own message shows what it took for the port: a part of the password, where that holds a '/'.
        wrong = "its port is not a number"
    else:
        if "@" in parts.path + parts.query + parts.fragment:
            # What stands before is taken for the host's name, which errors show.
            wrong = "there is an '@' after its host"
        elif parts.scheme in ("unix", "redis+socket"):
            raise SettingsError(
                f"MASKSCORE_REDIS_URL cannot be used: {parts.scheme}:// is a Unix socket, which maskscore does not "
                "connect to. Let Redis listen on 127.0.0.1, and give redis://127.0.0.1:PORT/0."
            )
        elif parts.scheme in ("redis", "rediss") and not re.fullmatch("/*[0-9]*/*", parts.path):
            # redis-py would take database 0.
            wrong = "what follows its host is not the number of a database"
    if wrong:
        raise SettingsError(
            f"MASKSCORE_REDIS_URL cannot be used: {wrong}. Special characters of a password are percent-encoded: '/' "
            "as %2F, '@' as %40, '#' as %23, '?' as %3F."
        )


@contextmanager
def redis_errors(settings: ClientSettings) -> Iterator[None]:
    """Turn Redis's errors into :class:`~maskscore.errors.ServiceUnavailable` with a sentence to act on."""
    where = public_url(settings.redis_url)
    try:
        yield
    except redis.AuthenticationError as error:
        raise ServiceUnavailable(
            f"Redis at {where} refused the credentials: {redis_reason(error)}. Check MASKSCORE_REDIS_URL."
        ) from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise ServiceUnavailable(
            f"Redis at {where} does not answer: {redis_reason(error)}. Check that it runs and MASKSCORE_REDIS_URL."
        ) from error
    except redis.exceptions.OutOfMemoryError as error:
        raise ServiceUnavailable(
            f"Redis at {where} is full: {redis_reason(error)}. Read results, raise `maxmemory`, or lower "
            "MASKSCORE_QUEUE_LIMIT or MASKSCORE_RESULT_TTL_S; then submit again, nothing is doubled."
        ) from error
    except redis.RedisError as error:
        raise ServiceUnavailable(f"Redis at {where} refused the command: {redis_reason(error)}.") from error


def redis_reason(error: Exception) -> str:
    """Return what an error of redis-py says, in one line without its full stop."""
    if isinstance(error, MasterNotFoundError):
        # Its own message is the inside of redis-py's connection pools.
        return "no Sentinel answers, or none knows a master of this name that is up"
    if str(error).startswith(("HELLO must be called", "NOAUTH")):
        # What Redis answers to a client that speaks RESP 3 and has no password.
        return "a password is required, and none was given"
    return redacted(str(error)).rstrip(".") or type(error).__name__
