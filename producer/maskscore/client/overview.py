"""The state of a deployment at one moment: the queue, the workers, recent failures."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from maskscore.broker import redis_errors
from maskscore.client.job_client import JobClient
from maskscore.ledger import Backlog, JobStatus, LiveWorker, ModelBacklog, TenantState, TenantStates
from maskscore.schema import DEFAULT_MODEL_NAME

__all__ = ["Overview", "read_overview"]

_MOST_TENANTS: Final = 20
_MOST_SHARDS: Final = 100


@dataclass(frozen=True, slots=True)
class Overview:
    """The state at one moment.

    ``failures`` counts the jobs that failed in the last ``minutes``, by code, the most frequent first. ``shards`` are
    those that run and have committed a part.
    """

    at: datetime
    backlog: Backlog
    workers: list[LiveWorker]
    minutes: int
    failures: dict[str, int]
    tenant_states: TenantStates = field(default_factory=lambda: TenantStates([]))
    shards: list[JobStatus] = field(default_factory=list)

    def tenants(self, most: int) -> TenantStates:
        """Return so many of the tenants with jobs: those at their limits first, then those with the most jobs."""
        busy: list[TenantState] = [state for state in self.tenant_states.tenants if state.waiting or state.running]
        return self.tenant_states.among(sorted(busy, key=lambda state: not state.at_limits)[:most])

    @property
    def models(self) -> dict[str, tuple[ModelBacklog, int]]:
        """The jobs and the number of workers of each model, by name; empty where only the default one is used."""
        serving = Counter(worker.report.model for worker in self.workers)
        names = {DEFAULT_MODEL_NAME, *self.backlog.models, *serving}
        if len(names) == 1:
            return {}
        jobs = {name: self.backlog.models.get(name, ModelBacklog()) for name in names}
        return {name: (jobs[name], serving[name]) for name in sorted(names, key=lambda n: (n != DEFAULT_MODEL_NAME, n))}

    @property
    def masks_per_s(self) -> float:
        """Of all workers together, over the last 10 s."""
        return sum(worker.report.masks_per_s for worker in self.workers)

    @property
    def in_flight(self) -> int:
        """Jobs that all workers together hold a lease on."""
        return sum(worker.report.in_flight for worker in self.workers)

    def document(self) -> dict[str, Any]:
        """Return the fields of the JSON document."""
        backlog = self.backlog
        models = {
            name: {
                "waiting": jobs.waiting,
                "running": jobs.running,
                "delayed": jobs.delayed,
                "oldest_waiting_s": round(jobs.oldest_waiting_s, 3),
                "workers": workers,
            }
            for name, (jobs, workers) in self.models.items()
        }
        tenants = self.tenants(_MOST_TENANTS)
        return {
            "at": self.at.isoformat(),
            "jobs": {"waiting": backlog.waiting, "running": backlog.running, "delayed": backlog.delayed},
            **({"models": models} if models else {}),
            "tenants": [{**state.document(), "at_limits": state.at_limits} for state in tenants.tenants],
            "other_tenants": {"queued": tenants.other_waiting, "running": tenants.other_running},
            **({"shards": list(map(_shard, self.shards[:_MOST_SHARDS]))} if self.shards else {}),
            "oldest_waiting_s": round(backlog.oldest_waiting_s, 3),
            "dead_letters": backlog.dead,
            "masks_per_s": round(self.masks_per_s, 3),
            "workers": [
                {**worker.report.model_dump(mode="json"), "seen_s": round(worker.age_s, 3)} for worker in self.workers
            ],
            "failures": self.failures,
            "failures_minutes": self.minutes,
        }


def read_overview(client: JobClient, *, minutes: int) -> Overview:
    """Read the state of the client's namespace; failures are counted over the last ``minutes``, 1 to 60.

    Raises :class:`~maskscore.errors.ServiceUnavailable` when Redis does not answer.
    """
    with redis_errors(client.settings):
        return Overview(
            datetime.now(UTC),
            client.backlog(),
            client.workers(),
            minutes,
            client._ledger.failures(minutes=minutes),
            client.tenants(),
            client._ledger.running_shards(),
        )


def _shard(status: JobStatus) -> dict[str, Any]:
    assert status.progress is not None
    return {"job_id": status.job_id, **asdict(status.progress)}
