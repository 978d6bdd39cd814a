"""A subscription to the ends of all jobs of a namespace, one for all waiters of a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

__all__ = ["End", "listen_for_ends"]


@dataclass(frozen=True, slots=True)
class End:
    """The end of a job, with the batches that the job is in."""

    job_id: str
    batch_ids: tuple[str, ...]


@contextmanager
def listen_for_ends(client: redis.Redis, *, namespace: str) -> Iterator[Callable[[float], End | bool]]:
    """Give a function that waits for the next end in the namespace, so many seconds at most.

    It returns ``False`` where it heard of none, and ``True`` where ends may have been missed: the connection was made
    anew. Raises :class:`redis.RedisError` when Redis does not answer.
    """
    prefix = f"{namespace}:ended:"
    untyped: Any = client
    with untyped.pubsub() as pubsub:
        # A namespace has no characters that are special in a pattern.
        pubsub.psubscribe(f"{prefix}*")
        # The answer to the subscription: from here on, no end is missed.
        pubsub.get_message(timeout=1.0)

        def listen(seconds: float) -> End | bool:
            message: dict[str, Any] | None = pubsub.get_message(timeout=seconds)
            if message is None:
                return False
            if message["type"] != "pmessage":
                return True
            _, *batch_ids = message["data"].decode().split()
            return End(message["channel"].decode().removeprefix(prefix), tuple(batch_ids))

        yield listen
