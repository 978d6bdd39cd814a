"""Batches: which jobs belong together, how many are in which state, and which have ended since when."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import redis

from maskscore.ledger.records import BatchCounts, BatchEvent, from_milliseconds
from maskscore.ledger.scripts import Scripts
from maskscore.schema import JobState

__all__ = ["BatchLedger"]

_SCAN = 5000
_STATES = [field.name for field in fields(BatchCounts)]


class BatchLedger:
    """The batches of one namespace, as the scripts of the ledger keep them.

    A batch exists from its first job on, and is kept for the ledger's time to live after its last one has ended.
    Every method raises :class:`redis.RedisError` when Redis does not answer.
    """

    def __init__(self, client: redis.Redis, *, namespace: str) -> None:
        self._redis: Any = client
        self._namespace = namespace
        self._prefix = f"{namespace}:batch"
        # The script that keeps a note ends nothing, so that no time to live is asked for.
        self._script = Scripts(client, namespace=namespace, ttl_ms=0)

    def counts(self, batch_id: str) -> BatchCounts | None:
        """Return how many jobs are in which state; ``None`` for an unknown batch."""
        row = self._redis.hmget(f"{self._prefix}:counts:{batch_id}", _STATES)
        return None if not any(value is not None for value in row) else BatchCounts(*(int(value or 0) for value in row))

    def tenant_of(self, batch_id: str) -> str | None:
        """Return whose a batch is: the tenant of its first job; ``None`` for an unknown batch."""
        known, tenant = self.known([batch_id])[0], self._redis.hget(f"{self._prefix}:counts:{batch_id}", "tenant")
        return (batch_id if tenant is None else tenant.decode()) if known else None

    def known(self, batch_ids: Sequence[str]) -> list[bool]:
        """Return for each id whether there is such a batch, in one round trip."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for batch_id in batch_ids:
                pipeline.exists(f"{self._prefix}:counts:{batch_id}")
            return [bool(found) for found in pipeline.execute()]

    def all(self) -> Iterator[str]:
        """Yield the ids of all batches, in no order. Redis looks at each of its keys for it, some at a time."""
        prefix = f"{self._prefix}:counts:"
        pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*"
        for key in self._redis.scan_iter(match=pattern, count=_SCAN, _type="hash"):
            yield key.decode().removeprefix(prefix)

    def submitted_at(self, batch_id: str) -> datetime | None:
        """Return when the batch's first job was submitted; ``None`` where its record is gone."""
        first = self._redis.lindex(f"{self._prefix}:jobs:{batch_id}", 0)
        at = first and self._redis.hget(f"{self._namespace}:job:{first.decode()}", "submitted_at")
        return from_milliseconds(at) if at else None

    def job_ids(self, batch_id: str, *, start: int, stop: int) -> list[str]:
        """Return the ids at the positions ``start`` to ``stop`` (excluded), in the order of submission."""
        ids = self._redis.lrange(f"{self._prefix}:jobs:{batch_id}", start, stop - 1)
        return [job_id.decode() for job_id in ids]

    def events(self, batch_id: str, *, after: str, limit: int, block_s: float) -> list[BatchEvent]:
        """Return up to ``limit`` events after the event id ``after`` (``0``: from the first one).

        Waits up to ``block_s`` seconds for one where there is none.
        """
        key = f"{self._prefix}:events:{batch_id}"
        answer = self._redis.xread({key: after}, count=limit, block=max(1, int(block_s * 1000)))
        return [event for _, entries in _pairs(answer) for event in _events(entries)]

    def position(self, batch_id: str, reader: str) -> str:
        """Return the event id up to which a named reader has come; ``0`` for a new one."""
        value = self._redis.hget(f"{self._prefix}:counts:{batch_id}", f"reader:{reader}")
        return value.decode() if value else "0"

    def set_position(self, batch_id: str, reader: str, event_id: str) -> None:
        """Note how far a named reader has come; nothing is kept where the batch is gone."""
        self._script("note", batch_id, f"reader:{reader}", event_id)

    def note(self, batch_id: str, name: str) -> str | None:
        """Return a text that was kept with the batch, or ``None``."""
        value = self._redis.hget(f"{self._prefix}:counts:{batch_id}", f"note:{name}")
        return value.decode() if value else None

    def set_note(self, batch_id: str, name: str, text: str) -> None:
        """Keep a text with the batch; it goes with it, and is not kept where the batch is gone."""
        self._script("note", batch_id, f"note:{name}", text)


def _pairs(answer: Any) -> Iterator[tuple[bytes, Any]]:
    # A list of pairs in RESP 2, a dictionary of lists in RESP 3.
    yield from (answer or {}).items() if isinstance(answer, dict) else (answer or [])


def _events(entries: Any) -> Iterator[BatchEvent]:
    nested = entries and isinstance(entries[0], list)
    for event_id, values in entries[0] if nested else entries:
        yield BatchEvent(event_id.decode(), values[b"job_id"].decode(), JobState(values[b"state"].decode()))
