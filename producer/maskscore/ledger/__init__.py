"""The ledger: one record per job in Redis, and what may happen to it.

Celery delivers job ids; the ledger decides. Each transition is one Lua script, so that it happens whole or not at
all, by Redis's clock alone:

    submit ──▶ waiting ──claim──▶ running ──finish──▶ succeeded | failed | cancelled
                  │  ╰─cancel─▶ cancelled      ╰─renew: the lease is moved on
                  ╰─claimed too late─▶ expired

``waiting`` (scored by submission), ``running`` (by the end of the lease) and ``delayed`` (by the time due) are sorted
sets; a job is in exactly one of them until it ends. Documents and results are opaque bytes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import redis

from maskscore.errors import JobConflict, JobNotFound
from maskscore.result import Failure, JobState

__all__ = ["Backlog", "Claim", "JobRecord", "JobStatus", "Ledger", "Submission"]

_PUBLIC_STATE = {"waiting": JobState.QUEUED, "delayed": JobState.QUEUED}
_ENDED_WITHOUT_RESULT = {
    JobState.CANCELLED: Failure(code="cancelled", message="The job was cancelled by its submitter."),
    JobState.EXPIRED: Failure(code="expired", message="The job was still queued when its `expires_in` had passed."),
}


@dataclass(frozen=True, slots=True)
class Submission:
    """What :meth:`Ledger.submit` writes down; ``digest`` decides whether a known id is the same job."""

    job_id: str
    document: bytes
    digest: str
    batch_id: str | None
    priority: str
    expires_in_s: float | None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run one attempt of a job, until the lease ends."""

    job_id: str
    attempt: int
    document: bytes
    submitted_at: datetime
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job is. ``error`` is set for ``failed``, ``cancelled`` and ``expired``; times are Redis's clock, UTC."""

    job_id: str
    state: JobState
    attempts: int
    submitted_at: datetime
    claimed_at: datetime | None
    finished_at: datetime | None
    worker: str | None
    batch_id: str | None
    error: Failure | None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job's status with its result: the stored bytes, or the URI of the object that holds them."""

    status: JobStatus
    result: bytes | None
    result_uri: str | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many jobs are where, and how long the oldest one in ``waiting`` has been there, in seconds."""

    waiting: int
    running: int
    delayed: int
    oldest_waiting_s: float


class Ledger:
    """The jobs of one namespace.

    Parameters
    ----------
    client: a :class:`redis.Redis` that returns bytes.
    namespace: prefix of every key.
    ttl_s: seconds that the record of an ended job is kept.

    Every method raises :class:`redis.RedisError` when Redis does not answer.
    """

    _STATUS_FIELDS = (
        "state",
        "attempts",
        "submitted_at",
        "claimed_at",
        "finished_at",
        "worker",
        "batch_id",
        "error_code",
        "error_message",
    )

    def __init__(self, client: redis.Redis, *, namespace: str, ttl_s: float) -> None:
        self._redis = client
        self._namespace = namespace
        self._ttl_ms = int(ttl_s * 1000)
        self._waiting, self._running, self._delayed = (
            f"{namespace}:{name}" for name in ("waiting", "running", "delayed")
        )
        scripts = resources.files(__name__)
        self._submit, self._claim, self._renew, self._finish, self._cancel = (
            client.register_script(scripts.joinpath(f"{name}.lua").read_text("utf-8"))
            for name in ("submit", "claim", "renew", "finish", "cancel")
        )

    def _record(self, job_id: str) -> str:
        return f"{self._namespace}:job:{job_id}"

    def submit(self, submissions: Sequence[Submission]) -> list[bool]:
        """Write down jobs, in one round trip; return for each whether it still needs a message in the queue.

        A known id with the same document is the same job. It needs a message if it is still waiting (its first submit
        may have died before sending one; a message too many costs nothing) or if the lease of the worker that took it
        has lapsed. Raises
        :class:`~maskscore.errors.JobConflict` for a known id with another document; the others are written down.
        """
        with self._redis.pipeline(transaction=False) as pipeline:
            for job in submissions:
                expires = "" if job.expires_in_s is None else int(job.expires_in_s * 1000)
                self._submit(
                    keys=[self._record(job.job_id), self._waiting, self._running],
                    args=[job.job_id, job.digest, job.document, job.batch_id or "", job.priority, expires],
                    client=pipeline,
                )
            answers = pipeline.execute()
        conflicts = [job.job_id for job, answer in zip(submissions, answers, strict=True) if answer[0] == b"conflict"]
        if conflicts:
            raise JobConflict(
                f"Another document was submitted before as job {', '.join(conflicts[:5])}. "
                "Give the new job an id of its own, or leave `job_id` out."
            )
        return [answer[1] in (b"waiting", b"lapsed") for answer in answers]

    def claim(self, job_id: str, *, worker: str, lease_s: float) -> Claim | None:
        """Take a job to run; ``None`` where there is nothing to do: unknown, taken, ended, cancelled or expired."""
        answer: list[Any] = self._claim(
            keys=[self._record(job_id), self._waiting, self._running],
            args=[job_id, worker, int(lease_s * 1000), self._ttl_ms],
        )
        if answer[0] != b"claimed":
            return None
        _, attempt, now, submitted_at, document = answer
        return Claim(job_id, int(attempt), document, _moment(submitted_at), _moment(now))

    def renew(self, claims: Sequence[Claim], *, lease_s: float) -> list[str]:
        """Move the leases on; return for each ``renewed``, ``cancelled`` (stop soon) or ``lost`` (stop at once)."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for claim in claims:
                self._renew(
                    keys=[self._record(claim.job_id), self._running],
                    args=[claim.job_id, claim.attempt, int(lease_s * 1000)],
                    client=pipeline,
                )
            return [answer.decode() for answer in pipeline.execute()]

    def finish(
        self,
        claim: Claim,
        *,
        result: bytes | None = None,
        result_uri: str | None = None,
        error: Failure | None = None,
    ) -> bool:
        """End a job as ``failed`` where there is an ``error``, else as ``succeeded``.

        Returns whether this attempt was still the current one; if not, nothing was changed.
        """
        state = JobState.SUCCEEDED if error is None else JobState.FAILED
        answer = self._finish(
            keys=[self._record(claim.job_id), self._running],
            args=[
                claim.job_id,
                claim.attempt,
                str(state),
                result or b"",
                result_uri or "",
                error.code if error else "",
                error.message if error else "",
                self._ttl_ms,
            ],
        )
        return bool(answer)

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job and return the state it is in now.

        A queued job is ``cancelled`` at once; a running one stays ``running`` until its worker's next step; an ended
        one stays as it is. Raises :class:`~maskscore.errors.JobNotFound`.
        """
        answer: list[bytes] = self._cancel(
            keys=[self._record(job_id), self._waiting, self._delayed], args=[job_id, self._ttl_ms]
        )
        if not answer[0]:
            raise _not_found(job_id)
        return _state(answer[1])

    def statuses(self, job_ids: Iterable[str]) -> list[JobStatus | None]:
        """Return where the jobs are, in one round trip; ``None`` for unknown ones."""
        ids = list(job_ids)
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in ids:
                pipeline.hmget(self._record(job_id), self._STATUS_FIELDS)
            rows = pipeline.execute()
        return [_status(job_id, row) for job_id, row in zip(ids, rows, strict=True)]

    def record(self, job_id: str) -> JobRecord:
        """Return a job's status and result. Raises :class:`~maskscore.errors.JobNotFound`."""
        row: list[bytes | None] = self._redis.hmget(  # type: ignore[assignment]
            self._record(job_id), [*self._STATUS_FIELDS, "result", "result_uri"]
        )
        status = _status(job_id, row[:-2])
        if status is None:
            raise _not_found(job_id)
        result, result_uri = row[-2:]
        return JobRecord(status, result, result_uri.decode() if result_uri else None)

    def document(self, job_id: str) -> bytes:
        """Return the job's document as submitted. Raises :class:`~maskscore.errors.JobNotFound`."""
        document: bytes | None = self._redis.hget(self._record(job_id), "document")  # type: ignore[assignment]
        if document is None:
            raise _not_found(job_id)
        return document

    def backlog(self) -> Backlog:
        """Count the jobs that have not ended."""
        with self._redis.pipeline(transaction=True) as pipeline:
            for name in (self._waiting, self._running, self._delayed):
                pipeline.zcard(name)
            pipeline.zrange(self._waiting, 0, 0, withscores=True)
            pipeline.time()
            waiting, running, delayed, oldest, (seconds, micros) = pipeline.execute()
        age = seconds + micros / 1e6 - oldest[0][1] / 1000 if oldest else 0.0
        return Backlog(waiting, running, delayed, max(0.0, age))


def _not_found(job_id: str) -> JobNotFound:
    return JobNotFound(
        f"No job {job_id} is known: it was never submitted to this Redis and namespace, or it ended so long ago that "
        "its record's time to live (MASKSCORE_RESULT_TTL_S) has passed."
    )


def _state(value: bytes) -> JobState:
    name = value.decode()
    return _PUBLIC_STATE.get(name) or JobState(name)


def _moment(milliseconds: bytes | int) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _status(job_id: str, row: Sequence[bytes | None]) -> JobStatus | None:
    state, attempts, submitted_at, claimed_at, finished_at, worker, batch_id, code, message = row
    if state is None or attempts is None or submitted_at is None:
        return None
    public = _state(state)
    error = _ENDED_WITHOUT_RESULT.get(public)
    if code is not None:
        error = Failure(code=code.decode(), message=(message or b"").decode())
    return JobStatus(
        job_id=job_id,
        state=public,
        attempts=int(attempts),
        submitted_at=_moment(submitted_at),
        claimed_at=_moment(claimed_at) if claimed_at else None,
        finished_at=_moment(finished_at) if finished_at else None,
        worker=worker.decode() if worker else None,
        batch_id=batch_id.decode() if batch_id else None,
        error=error,
    )
