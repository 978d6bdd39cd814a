"""Calls of the ledger that wait for Redis."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import redis

from maskscore.broker import is_transient
from maskscore_worker.jobs.shutdown import Shutdown

__all__ = ["until_redis_answers"]

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


def until_redis_answers(call: Callable[[], Answer], what: str, shutdown: Shutdown) -> Answer:
    """Call until Redis answers: nothing else can be done without it, and a computed result is worth the wait.

    Raises the :class:`redis.RedisError` of a command that Redis refuses for good, or when the grace period has ended.
    """
    pause_s = 0.1
    while True:
        try:
            return call()
        except redis.RedisError as error:
            if not is_transient(error):
                raise
            log.warning("Redis did not %s, trying again in %.1f s: %s", what, pause_s, error)
            if not shutdown.pause(pause_s):
                raise
            pause_s = min(pause_s * 2, 5.0)
