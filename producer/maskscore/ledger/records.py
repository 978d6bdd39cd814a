"""The records that the ledger takes and returns. Times are by Redis's clock, in UTC.

All are declared in this one module, beside what reads and writes them, so it is longer than others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from maskscore.broker import DEFAULT_MODEL
from maskscore.schema import Failure, JobState, Priority

__all__ = [
    "Backlog",
    "BatchCounts",
    "BatchEvent",
    "BatchSummary",
    "Claim",
    "DeadLetter",
    "JobRecord",
    "JobStatus",
    "ModelBacklog",
    "Reason",
    "ShardProgress",
    "Stray",
    "Submission",
    "Submitted",
    "SweepResult",
    "TenantLimits",
    "TenantState",
    "TenantStates",
    "Unclaimed",
    "from_milliseconds",
]


def from_milliseconds(milliseconds: bytes | int) -> datetime:
    """Return a time of the ledger, milliseconds since 1970, as UTC."""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Submission:
    """One job to write down; ``digest`` decides whether a known id is the same job.

    ``traceparent`` (W3C Trace Context) is of the span that submits it; the first submit's is kept. ``replaces`` says
    which job of this id another document replaces, to run anew: one that has ended without a result (``failed``), any
    that has ended (``ended``), or none. ``tenant`` is who shares the workers with others by turns; ``None``: the
    batch. ``model`` is the one whose workers take the job. ``masks``: how many it has; ``None``: not known.
    With ``apart``, another tenant's job of this id is a conflict, and its batch none that the job may join.
    """

    job_id: str
    document: bytes
    digest: str
    batch_id: str | None
    priority: Priority
    expires_in_s: float | None
    traceparent: str | None = None
    replaces: Literal["failed", "ended"] | None = None
    tenant: str | None = None
    model: str = DEFAULT_MODEL
    masks: int | None = None
    apart: bool = False


class Submitted(StrEnum):
    """What became of a submission."""

    WAITING = "waiting"
    """It waits in the queue."""
    KNOWN = "known"
    """It was submitted before and needs nothing."""
    CONFLICT = "conflict"
    """Another document has this id; nothing was changed."""
    FULL = "full"
    """The queue holds as many jobs as it may; nothing was changed."""
    TENANT_FULL = "tenant"
    """Its tenant has as many jobs queued as it may; nothing was changed."""
    FOREIGN_BATCH = "foreign"
    """The batch is another tenant's; nothing was changed."""
    IN_TOO_MANY_BATCHES = "batches"
    """The job is in as many batches as it may be; it did not join another one."""


class Unclaimed(StrEnum):
    """Why a worker was given no job."""

    EMPTY = "empty"
    """None waits that it may run."""
    SUSPECT = "suspect"
    """Next is one that may end its worker: ask again when nothing else runs in the process."""


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What is set for a tenant: turns it gets for each of another's, most jobs queued and running at a time, and masks.

    The queue's limit counts jobs that wait; with ``most_running`` 0 none is started. ``masks_per_second`` fills a
    bucket, of 2 s at most; a job is started while there is something in it, and takes as many masks as it has.
    ``None``: no limit of its own, so that the one for all tenants holds, if there is one.
    """

    weight: float = 1.0
    most_queued: int | None = None
    most_running: int | None = None
    masks_per_second: float | None = None

    def text(self) -> str:
        """Return what is set, as JSON."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not None})

    def over(self, defaults: TenantLimits) -> TenantLimits:
        """Return what holds where these are a tenant's own, and ``defaults`` are for those without."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(defaults, **given)


@dataclass(frozen=True, slots=True)
class TenantState:
    """A tenant: how many of its jobs wait and run, its limits, and for how long its bucket is still empty, in seconds.

    ``own``: whether it has limits of its own; ``limits`` are those that hold.
    """

    name: str
    waiting: int
    running: int
    limits: TenantLimits
    own: bool
    empty_for_s: float

    @property
    def at_limits(self) -> list[str]:
        """Say which of its limits a tenant is at, and what that means for its jobs."""
        limits, reached = self.limits, []
        if limits.most_queued is not None and self.waiting >= limits.most_queued:
            reached.append("queue full")
        if limits.most_running is not None and self.running >= limits.most_running and self.waiting:
            reached.append("all running that may" if limits.most_running else "on hold")
        if self.empty_for_s and self.waiting:
            reached.append(f"next in {self.empty_for_s:,.1f} s")
        return reached

    def document(self) -> dict[str, Any]:
        """Return the fields of the JSON document."""
        return {
            "tenant": self.name,
            "queued": self.waiting,
            "running": self.running,
            "weight": self.limits.weight,
            "max_queued": self.limits.most_queued,
            "max_running": self.limits.most_running,
            "masks_per_second": self.limits.masks_per_second,
            "own_limits": self.own,
            "next_in_s": self.empty_for_s,
        }


@dataclass(frozen=True, slots=True)
class TenantStates:
    """The tenants with jobs or limits of their own, those with the most jobs first; and how many jobs others have."""

    tenants: list[TenantState]
    other_waiting: int = 0
    other_running: int = 0

    def among(self, shown: Sequence[TenantState]) -> TenantStates:
        """Return these tenants alone, with the jobs of all the rest as those of others."""
        names = {state.name for state in shown}
        rest = [state for state in self.tenants if state.name not in names]
        return TenantStates(
            list(shown),
            self.other_waiting + sum(state.waiting for state in rest),
            self.other_running + sum(state.running for state in rest),
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run one attempt of a job, until the lease ends; ``token`` is what proves it.

    ``attempt`` counts those that ended with their worker and the present one; ``retries`` those that a transient fault
    ended. A shard counts both from its last committed part on, and has the ``cursor`` that was committed with it
    (empty: none yet) and the positions of its ``poisoned`` images, which ended their workers and are left out.
    """

    job_id: str
    token: str
    attempt: int
    retries: int
    document: bytes
    submitted_at: datetime
    claimed_at: datetime
    traceparent: str | None = None
    cursor: bytes = b""
    poisoned: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """How many images, masks and parts of a shard are committed."""

    images: int
    masks: int
    parts: int


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The state of a job. ``error`` is set for ``failed``, ``cancelled`` and ``expired``.

    ``attempts`` counts those that ended with their worker, and the last one; ``retries`` counts those that a
    transient fault ended; a shard counts both from its last committed part on. ``progress`` is that of a shard, from
    its first part on.
    """

    job_id: str
    state: JobState
    attempts: int
    retries: int
    submitted_at: datetime
    claimed_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    batch_id: str | None
    error: Failure | None
    progress: ShardProgress | None = None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job's status with its result: the stored bytes, or the URI of the object that holds them."""

    status: JobStatus
    result: bytes | None
    result_uri: str | None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one attempt did not end its job."""

    at: datetime
    code: str
    message: str
    worker: str | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up although its input may be fine: ``poisoned``, or its retries used up."""

    status: JobStatus
    died_at: datetime
    reasons: list[Reason] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ModelBacklog:
    """The number of a model's jobs in each state, and how long the one that has waited longest has waited, in seconds.

    The time is no part of a comparison: it passes.
    """

    waiting: int = 0
    running: int = 0
    delayed: int = 0
    oldest_waiting_s: float = field(default=0.0, compare=False)

    @property
    def unfinished(self) -> int:
        """All that have not ended: what workers are scaled by."""
        return self.waiting + self.running + self.delayed


@dataclass(frozen=True, slots=True)
class Backlog:
    """The number of jobs in each state, and how long the one that has waited longest has waited, in seconds.

    ``models`` has the same by the model's name, for the default one (``default``) and each of which there are any.
    """

    waiting: int
    running: int
    delayed: int
    dead: int
    oldest_waiting_s: float
    models: dict[str, ModelBacklog] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stray:
    """Something in the ledger's keys that the ledger did not write: put aside, so that it stops nothing.

    ``where`` is the key, ``job_id`` the entry in it (empty where it is the key as a whole).
    """

    at: datetime
    where: str
    job_id: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}{f', entry {self.job_id!r}' if self.job_id else ''}: {self.why}"


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What one round of the sweeper changed; ``held`` is false where another process sweeps.

    ``missing`` tickets were sent; ``more``: there is more to do at once. ``strays`` were put aside since the last
    round, by whatever script met them.
    """

    held: bool
    lapsed: int = 0
    poisoned: int = 0
    due: int = 0
    expired: int = 0
    missing: int = 0
    more: bool = False
    strays: list[Stray] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """How many jobs of a batch are in which state."""

    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        """All jobs of the batch."""
        return self.queued + self.running + self.ended

    @property
    def ended(self) -> int:
        """Those that have ended, in any state."""
        return self.succeeded + self.failed + self.cancelled + self.expired


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """A batch at a glance; ``submitted_at`` is of its first job, ``None`` where that job's record is gone."""

    batch_id: str
    counts: BatchCounts
    submitted_at: datetime | None


@dataclass(frozen=True, slots=True)
class BatchEvent:
    """A job of the batch has ended; ``event_id`` is its place in the batch's stream."""

    event_id: str
    job_id: str
    state: JobState
