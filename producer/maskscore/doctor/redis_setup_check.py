"""Checks that Redis is set up so that no job is lost: version, role, eviction, persistence, memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import redis

from maskscore.broker import SentinelAddress, parse_sentinel_url, redis_reason
from maskscore.doctor.deployment import Deployment
from maskscore.doctor.finding import Cause, Finding, failed, ok, warning
from maskscore.doctor.redis_check import ALLOW

__all__ = ["examine_redis_setup"]

_OLDEST = (7, 0)
_NEARLY_FULL = 0.8


def examine_redis_setup(deployment: Deployment) -> Iterator[Finding]:
    """Read INFO, which managed Redis answers, too, and hold it against what the ledger and Celery need."""
    try:
        info: dict[str, Any] = deployment.redis.info()
    except redis.ResponseError as error:
        yield warning("redis setup", f"INFO is refused, so the setup is not known: {redis_reason(error)}.", ALLOW)
        return
    sentinel = parse_sentinel_url(deployment.settings.redis_url)
    if sentinel:
        yield _sentinels(sentinel, deployment.timeout_s)
    yield _version(info)
    yield _role(info)
    yield _eviction(info)
    yield _persistence(info)
    yield _memory(info)


def _sentinels(address: SentinelAddress, timeout_s: float) -> Finding:
    silent = []
    for (host, port), client in address.sentinel_clients(timeout_s):
        with client:
            try:
                client.ping()
            except redis.RedisError as error:
                silent.append(f"{host}:{port} ({redis_reason(error)})")
    total = len(address.hosts)
    if silent:
        return warning(
            "sentinels",
            f"{len(silent)} of {total} do not answer: {', '.join(silent)}.",
            "Start them again: a majority has to agree before another Redis becomes the master.",
        )
    return ok("sentinels", f"{total} of {total} answer; the master is {address.master!r}.")


def _version(info: Mapping[str, Any]) -> Finding:
    text = str(info.get("redis_version", "0"))
    shown = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {text}"
    if tuple(int(part) for part in text.split(".")[:2] if part.isdigit()) < _OLDEST:
        return failed(
            "redis version",
            Cause.DEPLOYMENT,
            f"{shown} is too old: the ledger's scripts need 7.0.",
            "Run Redis 7.0 or newer.",
        )
    return ok("redis version", f"{shown}.")


def _role(info: Mapping[str, Any]) -> Finding:
    if info.get("role") != "master":
        master = f"{info.get('master_host')}:{info.get('master_port')}"
        return failed(
            "redis role",
            Cause.SETTINGS,
            f"This Redis is a replica, which takes no jobs; its master is {master}.",
            "Point MASKSCORE_REDIS_URL to the master, or to the Sentinels: sentinel://host:26379/0?master=NAME.",
        )
    replicas = int(info.get("connected_slaves", 0))
    return ok("redis role", f"A master without cluster mode; replicas: {replicas}.")


def _eviction(info: Mapping[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        return ok("eviction", "maxmemory-policy is noeviction: a full Redis refuses jobs and keeps those it has.")
    return failed(
        "eviction",
        Cause.DEPLOYMENT,
        f"maxmemory-policy is {policy}: when its memory is full, Redis drops jobs and results without a word.",
        "Set maxmemory-policy noeviction, in redis.conf or in the managed service's parameter group.",
    )


def _persistence(info: Mapping[str, Any]) -> Finding:
    wrong = [
        name
        for name in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
        if info.get(name, "ok") != "ok"
    ]
    if wrong:
        return failed(
            "persistence",
            Cause.DEPLOYMENT,
            f"Redis cannot write its data to disk: {', '.join(f'{name} is {info[name]}' for name in wrong)}.",
            "Free space on Redis's disk and check its rights; Redis's own log says more.",
        )
    if not info.get("aof_enabled"):
        return warning(
            "persistence",
            "appendonly is no: what came after Redis's last snapshot, if there is one, is lost with its process.",
            "Set appendonly yes. Without it, submit again whatever had not ended; nothing is doubled.",
        )
    return ok("persistence", "appendonly is yes, and the last write was well.")


def _memory(info: Mapping[str, Any]) -> Finding:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    limit = most or int(info.get("total_system_memory", 0))
    if not limit:
        return ok("memory", f"Redis uses {_size(used)}.")
    whose = "its maxmemory" if most else "all that its machine has, since maxmemory is unset"
    sentence = f"Redis uses {_size(used)} of {_size(limit)} ({used / limit:.0%}), {whose}."
    if used < _NEARLY_FULL * limit:
        return ok("memory", sentence)
    advice = (
        "Give it more memory, lower MASKSCORE_RESULT_TTL_S, or let results go to S3 (result_uri). When it is full, no "
        "job is taken."
    )
    return (
        failed("memory", Cause.DEPLOYMENT, sentence, advice) if used >= limit else warning("memory", sentence, advice)
    )


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
