"""Celery's remote control: revoking a task cancels the job in the ledger; a consumer can be cancelled and added."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import redis
from celery.worker.control import Panel

from maskscore.broker import redis_reason
from maskscore.ledger import Ledger

__all__ = ["ConsumerState", "register_commands"]

log = logging.getLogger(__name__)


def register_commands(ledger: Ledger) -> None:
    """Replace Celery's ``revoke`` and ``terminate`` by maskscore's.

    Celery's own know only tickets, which name no job: the sweeper would send another one, and the job would run.
    """

    def cancel(task_id: str | list[str]) -> dict[str, str]:
        ids = [task_id] if isinstance(task_id, str) else list(task_id or [])
        try:
            states = ledger.cancel_many(ids)
        except redis.RedisError as error:
            return {"error": f"Redis does not answer: {redis_reason(error)}"}
        became = ", ".join(f"{job_id} is {state or 'unknown'}" for job_id, state in zip(ids, states, strict=True))
        log.info("asked by remote control to cancel jobs: %s", became)
        return {"ok": f"{became}; a running job stops at its next step"}

    def revoke(state: Any, task_id: str | list[str], **_: Any) -> dict[str, str]:
        """Cancel jobs by id (see `maskscore cancel`)."""
        return cancel(task_id)

    def terminate(state: Any, signal: str, task_id: str | list[str], **_: Any) -> dict[str, str]:
        """Cancel jobs by id (see `maskscore cancel`); no signal is sent."""
        return cancel(task_id)

    def revoke_by_stamped_headers(state: Any, headers: Any, **_: Any) -> dict[str, str]:
        """Refuse: maskscore's messages have no stamps."""
        return {"error": "maskscore's messages have no stamps; `maskscore cancel` takes ids"}

    Panel.register(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")(revoke)
    Panel.register(
        name="terminate", variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]"
    )(terminate)
    Panel.register(name="revoke_by_stamped_headers", variadic="headers")(revoke_by_stamped_headers)


class ConsumerState:
    """Whether Celery's consumer takes messages from the queue.

    Parameters
    ----------
    consumer: returns Celery's ``Consumer``; ``None`` before there is one.
    queue: its name.
    """

    def __init__(self, consumer: Callable[[], Any], queue: str) -> None:
        self._consumer = consumer
        self._queue = queue

    @property
    def cancelled(self) -> bool:
        """Whether ``celery control cancel_consumer`` was used: connected, but taking nothing."""
        tasks = getattr(self._consumer(), "task_consumer", None)
        return tasks is not None and not tasks.consuming_from(self._queue)

    @property
    def reason(self) -> str | None:
        """Why no messages are taken; ``None``: they are."""
        if getattr(self._consumer(), "task_consumer", None) is None:
            return "it is not connected to the queue"
        if self.cancelled:
            return (
                f"its consumer was cancelled (`celery control add_consumer {self._queue}` lets it take jobs again), or "
                "its connection to the queue is being made anew"
            )
        return None
