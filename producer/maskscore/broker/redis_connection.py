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

from maskscore.broker.redaction import public_url, redacted
from maskscore.broker.sentinel import parse_sentinel_url
from maskscore.errors import ServiceUnavailable, SettingsError
from maskscore.settings import ClientSettings

__all__ = ["KEEPALIVE", "ClusterModeError", "connect", "is_transient", "redis_errors", "redis_reason", "refuse_cluster"]


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
        # fail the next command although Redis is there. Every command of ours may be sent twice. One that was not
        # answered in time is not: the caller was told how long it takes at most.
        "retry": Retry(ConstantBackoff(0.1), 1, (redis.ConnectionError,)),
        "redis_connect_func": _connect_and_check_mode,
    }
    sentinel = parse_sentinel_url(settings.redis_url)
    if sentinel:
        return sentinel.client(settings.redis_timeout_s, **options)
    _check_url(settings.redis_url)
    try:
        return redis.Redis.from_url(settings.redis_url, **options)
    except ValueError as error:
        raise SettingsError(f"MASKSCORE_REDIS_URL cannot be used: {redacted(str(error))}") from None


class ClusterModeError(redis.RedisError):
    """The Redis that was connected to runs in cluster mode."""

    def __init__(self) -> None:
        super().__init__("it runs in cluster mode, which neither the ledger's scripts nor Celery can use")


def refuse_cluster(client: redis.Redis, settings: ClientSettings) -> None:
    """Raise :class:`~maskscore.errors.SettingsError` for a Redis in cluster mode.

    For what begins also while Redis is away; any other call on a client of :func:`connect` notices it as well.
    """
    try:
        with redis_errors(settings):
            client.ping()
    except ServiceUnavailable:
        return


def _connect_and_check_mode(connection: Any) -> None:
    greet = getattr(connection, "on_connect_check_health", None)
    # A PING before the HELLO would be refused for want of a password.
    greet(check_health=False) if greet else connection.on_connect()
    # Redis's answer to the HELLO with which redis-py begins; where it speaks RESP 2, it does not.
    greeting: Any = getattr(connection, "handshake_metadata", None)
    if greeting is None:
        connection.send_command("HELLO")
        try:
            greeting = connection.read_response()
        except redis.ResponseError:
            return
    pairs = greeting.items() if isinstance(greeting, dict) else zip(greeting[::2], greeting[1::2], strict=False)
    if any(name in (b"mode", "mode") and value in (b"cluster", "cluster") for name, value in pairs):
        raise ClusterModeError


_TRANSIENT = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.TryAgainError,
    # MASTERDOWN, too.
    redis.exceptions.ClusterDownError,
)
# redis-py knows no types for these; in a pipeline it puts the command before them. UNBLOCKED: a blocked command's
# Redis became a replica.
_TRANSIENT_CODES = re.compile("(^|caused error: )-?(BUSY|MISCONF|NOREPLICAS|UNBLOCKED|INPROG|NOGOODSLAVE|FAILOVER) ")


def is_transient(error: redis.RedisError) -> bool:
    """Whether the same command may succeed later.

    Redis is away, loading, full, not writable, no master, short of replicas or busy with a script just now.
    """
    if isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError):
        return False
    return isinstance(error, _TRANSIENT) or bool(_TRANSIENT_CODES.search(str(error)))


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
    """Turn Redis's errors into :class:`~maskscore.errors.ServiceUnavailable` with a sentence to act on.

    A Redis in cluster mode is a :class:`~maskscore.errors.SettingsError`: it will not do later either.
    """
    where = public_url(settings.redis_url)
    try:
        yield
    except ClusterModeError as error:
        raise SettingsError(
            f"MASKSCORE_REDIS_URL: the Redis at {where} cannot be used: {error}. Use one without it: a single server, "
            "or a master with replicas behind Sentinel."
        ) from error
    except redis.AuthenticationError as error:
        raise ServiceUnavailable(
            f"Redis at {where} refused the credentials: {redis_reason(error)}. Check MASKSCORE_REDIS_URL."
        ) from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise ServiceUnavailable(
            f"Redis at {where} does not answer: {redis_reason(error)}. Check that it runs and MASKSCORE_REDIS_URL."
        ) from error
    except redis.exceptions.NoPermissionError as error:
        raise ServiceUnavailable(
            f"Redis at {where} does not allow its user what is needed: {redis_reason(error)}. docs/how-to/redis.md has "
            "the least rule; `maskscore doctor` says what is missing."
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
