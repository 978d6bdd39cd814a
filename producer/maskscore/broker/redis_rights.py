"""What Redis must allow its user, if it has ACLs: the least rule, and whether they are granted.

A right that is missing would be noticed late: a worker that may not take from the queue looks idle, and a script that
is refused half-way has written half of what it wanted.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

import redis

from maskscore.errors import SettingsError

__all__ = ["COMMANDS", "acl_rule", "missing_right", "refuse_missing_rights"]

COMMANDS: Final = (
    # Connecting.
    *("auth", "client", "hello", "ping", "select", "info", "time"),
    # The ledger's scripts, and what is read beside them.
    *("eval", "evalsha", "script", "multi", "exec", "discard", "watch", "unwatch"),
    *("del", "unlink", "exists", "scan", "expire", "pexpire", "persist", "pttl", "rename", "type"),
    *("get", "mget", "set", "setex", "psetex"),
    *("hdel", "hget", "hgetall", "hincrby", "hmget", "hset", "hsetnx"),
    *("zadd", "zcard", "zcount", "zrange", "zrangebyscore", "zrem", "zremrangebyscore", "zrevrange", "zscore"),
    *("xadd", "xread"),
    # The queue, and Celery's remote control.
    *("brpop", "lindex", "llen", "lpush", "lrange", "ltrim", "rpop", "rpush", "sadd", "smembers", "srem"),
    *("publish", "subscribe", "psubscribe", "unsubscribe", "punsubscribe"),
)
"""Every command that maskscore sends, in lower case."""


def acl_rule(namespace: str, *, db: int = 0) -> str:
    """Return the least rule for ``ACL SETUSER NAME on >PASSWORD RULE``.

    The keys are the namespace itself (which the scripts are given) and all that begin with it and a colon. A pattern
    that is subscribed to must be in the rule letter by letter: the ends of jobs, and the two channels of Celery.
    """
    celery = f"{namespace}:celery:/{db}."
    channels = (f"{namespace}:*", f"{namespace}:ended:*", f"{celery}celery.pidbox", f"{celery}celeryev/*")
    return " ".join(
        [
            "resetkeys",
            f"~{namespace}",
            f"~{namespace}:*",
            "resetchannels",
            *(f"&{channel}" for channel in channels),
            "-@all",
            *(f"+{command}" for command in COMMANDS),
        ]
    )


def missing_right(client: redis.Redis, namespace: str) -> str | None:
    """Return what Redis does not allow its user, as Redis says it; ``None`` where nothing is missing.

    Commands are tried on keys of the namespace that are gone afterwards. Raises :class:`redis.RedisError` where Redis
    does not answer.
    """
    untyped: Any = client
    try:
        # The scripts' one declared key is the namespace itself.
        untyped.eval("return 1", 1, namespace)
    except redis.exceptions.NoPermissionError as error:
        return f"{error} (a script on the key {namespace!r})"
    key = f"{namespace}:rights:{uuid.uuid4().hex}"
    with untyped.pipeline(transaction=False) as pipeline:
        for command in _test_commands(key):
            pipeline.execute_command(*command)
        answers = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, redis.exceptions.NoPermissionError):
            return str(answer)
    db = untyped.get_connection_kwargs().get("db") or 0
    for pattern in (f"{namespace}:ended:*", f"{namespace}:celery:/{db}.celery.pidbox"):
        with untyped.pubsub() as pubsub:
            pubsub.psubscribe(pattern)
            try:
                pubsub.get_message(timeout=1.0)
            except redis.exceptions.NoPermissionError as error:
                return f"{error} (the pattern {pattern!r})"
    return None


def refuse_missing_rights(client: redis.Redis, namespace: str) -> None:
    """Raise :class:`~maskscore.errors.SettingsError` where Redis does not allow its user what a worker needs.

    Raises :class:`redis.RedisError` where Redis does not answer.
    """
    missing = missing_right(client, namespace)
    if missing is not None:
        raise SettingsError(
            f"Redis's user in MASKSCORE_REDIS_URL lacks a right: {missing}. Give it the rule of docs/how-to/redis.md, "
            f"for the namespace {namespace!r}."
        )


def _test_commands(key: str) -> list[tuple[Any, ...]]:
    """Harmless calls of the commands, on four keys that begin with ``key``; the last ones remove what they made."""
    text, fields, scores, line, events, names = (
        f"{key}:{kind}" for kind in ("text", "hash", "zset", "list", "stream", "set")
    )
    return [
        *(("TIME",), ("TYPE", text), ("EXISTS", text), ("SET", text, 1, "PX", 60_000), ("GET", text), ("MGET", text)),
        *(("PEXPIRE", text, 60_000), ("EXPIRE", text, 60), ("PTTL", text), ("PERSIST", text), ("RENAME", text, text)),
        *(("HSET", fields, "a", 1), ("HSETNX", fields, "a", 1), ("HGET", fields, "a"), ("HMGET", fields, "a")),
        *(("HGETALL", fields), ("HINCRBY", fields, "a", 1), ("HDEL", fields, "a")),
        *(("ZADD", scores, 1, "a"), ("ZCARD", scores), ("ZCOUNT", scores, 0, 1), ("ZSCORE", scores, "a")),
        *(("ZRANGE", scores, 0, 1), ("ZREVRANGE", scores, 0, 1), ("ZRANGEBYSCORE", scores, 0, 1)),
        *(("ZREM", scores, "a"), ("ZREMRANGEBYSCORE", scores, 0, 1)),
        *(("LPUSH", line, "a"), ("RPUSH", line, "a"), ("LLEN", line), ("LRANGE", line, 0, 1), ("LTRIM", line, 0, 1)),
        *(("LINDEX", line, 0), ("SCAN", 0, "MATCH", line, "COUNT", 1)),
        *(("BRPOP", line, 1), ("RPOP", line)),
        *(("XADD", events, "*", "a", 1), ("XREAD", "COUNT", 1, "STREAMS", events, 0)),
        *(("SADD", names, "a"), ("SMEMBERS", names), ("SREM", names, "a")),
        ("PUBLISH", key, ""),
        ("SCRIPT", "EXISTS", "0" * 40),
        ("UNLINK", text, fields),
        ("DEL", scores, line, events, names),
    ]
