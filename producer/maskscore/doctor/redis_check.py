"""Checks that Redis answers, how fast, and that the user has the necessary rights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import redis

from maskscore.broker import ClusterModeError, missing_right, public_url, redis_reason
from maskscore.doctor.deployment import Deployment
from maskscore.doctor.finding import Cause, Finding, failed, ok, warning

__all__ = ["ALLOW", "examine_redis", "examine_rights"]

_PINGS = 11
_SLOW_MS = 20.0


def examine_redis(deployment: Deployment) -> Iterator[Finding]:
    """Connect, and measure the round trip."""
    client = deployment.redis
    where = public_url(deployment.settings.redis_url)
    try:
        client.ping()
        median_ms = statistics.median(_ping_ms(client) for _ in range(_PINGS))
    except ClusterModeError as error:
        yield failed(
            "redis role",
            Cause.DEPLOYMENT,
            f"{where} cannot be used: {error}.",
            "Use a Redis without cluster mode: one server, or one master with replicas behind Sentinel.",
        )
        return
    except redis.AuthenticationError as error:
        yield failed(
            "redis",
            Cause.SETTINGS,
            f"{where} refuses the credentials: {redis_reason(error)}.",
            "Correct the password in MASKSCORE_REDIS_URL (redis://:PASSWORD@host:6379/0, or USER:PASSWORD); special "
            "characters are percent-encoded.",
        )
        return
    except redis.ResponseError as error:
        yield failed("redis", Cause.SETTINGS, f"{where} refuses PING: {redis_reason(error)}.", ALLOW)
        return
    except (redis.ConnectionError, redis.TimeoutError) as error:
        reason = redis_reason(error)
        yield failed(
            "redis", Cause.UNAVAILABLE, f"{where} does not answer: {reason}.", _what_to_check(error, reason, where)
        )
        return
    deployment.reached.add("redis")
    sentence = f"{where} answers in {median_ms:.2f} ms (median of {_PINGS} PINGs)."
    if median_ms > _SLOW_MS:
        yield warning("redis", sentence, "Run Redis nearer to its clients: each job takes several round trips.")
    else:
        yield ok("redis", sentence)


ALLOW = "Give the user the rights of the ACL rule in docs/how-to/redis.md, or more."


def examine_rights(deployment: Deployment) -> Iterator[Finding]:
    """Try what a worker and its clients need, on keys that are gone afterwards."""
    namespace = deployment.settings.namespace
    missing = missing_right(deployment.redis, namespace)
    if missing is None:
        yield ok("redis rights", f"The user may do what is needed on {namespace!r} and on what begins with it.")
    else:
        yield failed("redis rights", Cause.DEPLOYMENT, f"The user lacks a right: {missing}.", ALLOW)


def _ping_ms(client: redis.Redis) -> float:
    started = time.perf_counter()
    client.ping()
    return (time.perf_counter() - started) * 1000


def _what_to_check(error: Exception, reason: str, where: str) -> str:
    if isinstance(error, redis.BusyLoadingError):
        return "Wait until it has loaded its data."
    if isinstance(error, redis.TimeoutError) and where.startswith("rediss:"):
        return "Perhaps Redis speaks no TLS: then write redis://. Or a firewall drops the packets."
    if isinstance(error, redis.TimeoutError):
        return "A firewall, security group or network policy may drop the packets; check host and port, too."
    if "not known" in reason or "resolution" in reason or "nodename" in reason:
        return "Correct the host in MASKSCORE_REDIS_URL, or the DNS of this machine."
    if "closed" in reason or "reset" in reason or "SSL" in reason:
        return "Perhaps one side speaks TLS and the other does not: rediss:// is with, redis:// without."
    if "Sentinel" in reason:
        return "Check that the Sentinels run, and hosts, master and sentinel_password in MASKSCORE_REDIS_URL."
    return (
        "Start Redis, or correct MASKSCORE_REDIS_URL. Inside a container, 127.0.0.1 is that container, not the machine."
    )
