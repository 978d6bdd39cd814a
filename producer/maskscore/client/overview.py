"""What there is to see of a deployment at one moment: the queue, the workers, what failed lately."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from maskscore.broker import connect, redis_errors
from maskscore.ledger import Backlog, Ledger, SeenWorker, WorkerRegistry
from maskscore.settings import ClientSettings

__all__ = ["Observer", "Overview"]


@dataclass(frozen=True, slots=True)
class Overview:
    """The state at one moment.

    ``failures`` counts the jobs that failed in the last ``minutes``, by code, the most frequent first.
    """

    at: datetime
    backlog: Backlog
    workers: list[SeenWorker]
    minutes: int
    failures: dict[str, int]

    @property
    def masks_per_s(self) -> float:
        """Of all workers together, over the last 10 s."""
        return sum(worker.line.masks_per_s for worker in self.workers)

    def document(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        backlog = self.backlog
        return {
            "at": self.at.isoformat(),
            "jobs": {"waiting": backlog.waiting, "running": backlog.running, "delayed": backlog.delayed},
            "oldest_waiting_s": round(backlog.oldest_waiting_s, 3),
            "dead_letters": backlog.dead,
            "masks_per_s": round(self.masks_per_s, 3),
            "workers": [
                {**worker.line.model_dump(mode="json"), "seen_s": round(worker.age_s, 3)} for worker in self.workers
            ],
            "failures": self.failures,
            "failures_minutes": self.minutes,
        }


class Observer:
    """Reads the state of one namespace, again and again.

    Parameters
    ----------
    minutes: how far back failures are counted, 1 to 60.
    """

    def __init__(self, settings: ClientSettings, *, minutes: int) -> None:
        self._settings = settings
        self._minutes = minutes
        self._redis = connect(settings)
        self._ledger = Ledger(self._redis, namespace=settings.namespace, ttl_s=settings.result_ttl_s)
        self._registry = WorkerRegistry(self._redis, namespace=settings.namespace)

    def look(self) -> Overview:
        """Read it once. Raises :class:`~maskscore.errors.ServiceUnavailable` when Redis does not answer."""
        with redis_errors(self._settings):
            return Overview(
                datetime.now(UTC),
                self._ledger.backlog(),
                self._registry.workers(),
                self._minutes,
                self._ledger.failures(minutes=self._minutes),
            )

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
