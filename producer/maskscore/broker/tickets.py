"""Tickets: messages of Celery, each of which entitles the worker that takes it to the next job of a model.

The ledger's scripts write them, so that a job and its ticket are there together or not at all. The form is that of
Celery's second protocol (https://docs.celeryq.dev/en/stable/internals/protocol.html) in kombu's envelope, without
the fields that have defaults: a queued job's ticket takes a third of what Celery's own message does.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Final

import redis

__all__ = ["DEFAULT_MODEL", "TASK_NAME", "TICKET", "queue_keys", "queue_name", "queued_tickets"]

TASK_NAME: Final = "maskscore.score"
DEFAULT_MODEL: Final = ""
"""The model of jobs that ask for none."""
PRIORITY_STEPS: Final = range(6)
"""Celery's priorities of tickets: 1, 3 and 5 for ``high``, ``normal`` and ``low``; release 0 used the others, too."""

# Kombu puts a priority other than 0 behind the queue's name and this (`kombu.transport.redis.Channel.sep`).
_SEPARATOR: Final = "\x06\x16"
# Release 0 takes what the arguments name for a job's id, knows of none, and goes on.
_BODY: Final = base64.b64encode(json.dumps([["ticket"], {}, {}], separators=(",", ":")).encode()).decode()
TICKET: Final = json.dumps(
    {
        "body": _BODY,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": TASK_NAME, "id": "%s"},
        "properties": {"delivery_info": {}, "delivery_tag": "%s", "body_encoding": "base64"},
    },
    separators=(",", ":"),
)
"""The message, with ``%s`` in the two places of its id."""


def queue_name(namespace: str, model: str = DEFAULT_MODEL) -> str:
    """Return the name of the Celery queue that holds a model's tickets."""
    return f"{namespace}.{model}" if model else namespace


def queue_keys(namespace: str, model: str = DEFAULT_MODEL) -> list[str]:
    """Return the Redis lists that hold a model's tickets, one per priority (``kombu.transport.redis.Channel``)."""
    key = f"{namespace}:celery:{queue_name(namespace, model)}"
    return [f"{key}{_SEPARATOR}{step}" if step else key for step in PRIORITY_STEPS]


def queued_tickets(client: redis.Redis, keys: Iterable[str]) -> int:
    """Count the messages in the lists of :func:`queue_keys`. Raises :class:`redis.RedisError`."""
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.llen(key)
        return sum(pipeline.execute())
