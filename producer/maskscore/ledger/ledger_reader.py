"""Reading the ledger: statuses, results, documents, dead letters and counts; nothing here changes a job.

It is one class, so it is longer than other modules.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis

from maskscore.errors import JobNotFound
from maskscore.ledger.records import (
    Backlog,
    DeadLetter,
    JobRecord,
    JobStatus,
    ModelBacklog,
    Reason,
    ShardProgress,
    Stray,
    TenantLimits,
    TenantState,
    TenantStates,
    from_milliseconds,
)
from maskscore.ledger.scripts import Scripts
from maskscore.schema import DEFAULT_MODEL_NAME, Failure, JobState

__all__ = ["LedgerReader", "job_state", "no_such_record", "parse_stray"]

NO_LIMITS: Final = TenantLimits()
_PUBLIC_STATE = {"waiting": JobState.QUEUED, "delayed": JobState.QUEUED}
_ENDED_WITHOUT_RESULT = {
    JobState.CANCELLED: Failure(code="cancelled", message="The job was cancelled by its submitter."),
    JobState.EXPIRED: Failure(code="expired", message="The job was still queued when its `expires_in` had passed."),
}
# As a whole, or in pieces: see `submit.lua`.
_DOCUMENT_FIELDS = ("document", *(f"d{number}" for number in range(1, 10)))
_STATUS_FIELDS = (
    "state",
    "attempts",
    "retries",
    "submitted_at",
    "claimed_at",
    "finished_at",
    "worker",
    "batches",
    "error_code",
    "error_message",
    "progress",
)


class LedgerReader:
    """The jobs of one namespace, for reading; :class:`Ledger` adds the transitions.

    Parameters: see there. Every method raises :class:`redis.RedisError` when Redis does not answer.
    """

    def __init__(self, client: redis.Redis, *, namespace: str, ttl_s: float, limits: TenantLimits = NO_LIMITS) -> None:
        self._redis: Any = client
        self._namespace = namespace
        self._limits = limits
        self._script = Scripts(client, namespace=namespace, ttl_ms=int(ttl_s * 1000), last=limits.text())

    def statuses(self, job_ids: Iterable[str]) -> list[JobStatus | None]:
        """Return where the jobs are, in one round trip; ``None`` for unknown ones."""
        ids = list(job_ids)
        rows = self._rows(ids, _STATUS_FIELDS)
        return [_status(job_id, row) for job_id, row in zip(ids, rows, strict=True)]

    def records(self, job_ids: Iterable[str]) -> list[JobRecord | None]:
        """Return the jobs' statuses and results, in one round trip; ``None`` for unknown ones."""
        ids = list(job_ids)
        records: list[JobRecord | None] = []
        for job_id, (*row, result, uri) in zip(
            ids, self._rows(ids, (*_STATUS_FIELDS, "result", "result_uri")), strict=True
        ):
            status = _status(job_id, row)
            records.append(JobRecord(status, result, uri.decode() if uri else None) if status else None)
        return records

    def running_shards(self, *, among: int = 500) -> list[JobStatus]:
        """Return the shards that run and have committed a part, the first submitted first, of so many running jobs."""
        ids = [job_id.decode() for job_id in self._redis.zrange(f"{self._namespace}:running", 0, among - 1)]
        found = [status for status in self.statuses(ids) if status is not None and status.progress is not None]
        return sorted(found, key=lambda status: (status.submitted_at, status.job_id))

    def record(self, job_id: str) -> JobRecord:
        """Return a job's status and result. Raises :class:`~maskscore.errors.JobNotFound`."""
        (record,) = self.records([job_id])
        if record is None:
            raise no_such_record(job_id)
        return record

    @contextmanager
    def watched(self, job_id: str) -> Iterator[Callable[[float], None]]:
        """Give a function that waits for the job's end, so many seconds at most.

        It may return early, and an end while the connection was broken is missed: check the status before and
        after.
        """
        with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(f"{self._namespace}:ended:{job_id}")
            # The answer to the subscription: from here on, no end is missed.
            pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
            yield lambda seconds: pubsub.get_message(timeout=seconds)

    def document(self, job_id: str) -> bytes:
        """Return the job's document as submitted. Raises :class:`~maskscore.errors.JobNotFound`."""
        return self.documents([job_id])[0]

    def models(self, job_ids: Sequence[str]) -> set[str]:
        """Return the names of the models that the jobs are for, in one round trip; unknown jobs are passed over."""
        rows = self._rows(job_ids, ("state", "model"))
        return {model.decode() if model else DEFAULT_MODEL_NAME for state, model in rows if state is not None}

    def tenant_of(self, job_id: str) -> str | None:
        """Return whose a job is; ``None`` for an unknown one."""
        ((state, tenant, batches),) = self._rows([job_id], ("state", "tenant", "batches"))
        if state is None:
            return None
        return (tenant if tenant is not None else (batches or b"").partition(b" ")[0]).decode()

    def documents(self, job_ids: Sequence[str]) -> list[bytes]:
        """Return the jobs' documents, in one round trip. Raises :class:`~maskscore.errors.JobNotFound`."""
        documents = []
        for job_id, parts in zip(job_ids, self._rows(job_ids, _DOCUMENT_FIELDS), strict=True):
            document = b"".join(part for part in parts if part is not None)
            if not document:
                raise no_such_record(job_id)
            documents.append(document)
        return documents

    def dead_letters(self, *, limit: int = 1000) -> list[DeadLetter]:
        """Return the dead letters, the latest first."""
        ids = [job_id.decode() for job_id in self._redis.zrevrange(f"{self._namespace}:dead", 0, limit - 1)]
        rows = self._rows(ids, (*_STATUS_FIELDS, "reasons"))
        letters = []
        for job_id, (*row, reasons) in zip(ids, rows, strict=True):
            status = _status(job_id, row)
            if status is not None:
                died_at = status.finished_at or status.submitted_at
                letters.append(DeadLetter(status, died_at, _reasons(reasons)))
        return letters

    def dead_letter(self, job_id: str) -> DeadLetter:
        """Return one dead letter. Raises :class:`~maskscore.errors.JobNotFound` where it is none."""
        died_at = self._redis.zscore(f"{self._namespace}:dead", job_id)
        ((*row, reasons),) = self._rows([job_id], (*_STATUS_FIELDS, "reasons"))
        status = _status(job_id, row)
        if died_at is None or status is None:
            raise JobNotFound(f"{job_id} is not on the list of dead letters; `maskscore dead list` shows it.")
        return DeadLetter(status, from_milliseconds(int(died_at)), _reasons(reasons))

    def backlog(self) -> Backlog:
        """Count the jobs that have not ended, and the dead letters."""
        waiting, running, delayed, dead, oldest_ms, rows = self._script("backlog")
        models = {DEFAULT_MODEL_NAME: ModelBacklog()}
        for name, waiting_of, running_of, delayed_of, oldest_of_ms in zip(*[iter(rows)] * 5, strict=True):
            of_model = ModelBacklog(waiting_of, running_of, delayed_of, max(0.0, oldest_of_ms / 1000))
            if of_model.unfinished:
                models[name.decode("utf-8", "replace") or DEFAULT_MODEL_NAME] = of_model
        return Backlog(waiting, running, delayed, dead, max(0.0, oldest_ms / 1000), models)

    def tenants(self) -> dict[str, TenantLimits]:
        """Return the tenants whose weight or limits were set, each with what was set for it."""
        stored = self._redis.hgetall(f"{self._namespace}:tenants")
        limits = {name.decode("utf-8", "replace"): _limits(text) for name, text in stored.items()}
        return {name: found for name, found in limits.items() if found is not None}

    def tenant_states(self) -> TenantStates:
        """Return the tenants with jobs that wait or run, and those with limits of their own."""
        rows, waiting, running = self._script("tenants")
        own = self.tenants()
        states = []
        for name, waits, runs, empty_ms in zip(*[iter(rows)] * 4, strict=True):
            tenant = name.decode("utf-8", "replace")
            limits = own.get(tenant, NO_LIMITS).over(self._limits) if tenant in own else self._limits
            states.append(TenantState(tenant, waits, runs, limits, tenant in own, empty_ms / 1000))
        states.sort(key=lambda state: (-state.waiting - state.running, state.name))
        return TenantStates(
            states,
            max(0, waiting - sum(state.waiting for state in states)),
            max(0, running - sum(state.running for state in states)),
        )

    def tenant_limits(self, tenant: str) -> TenantLimits:
        """Return the limits that hold for a tenant."""
        own = self._redis.hget(f"{self._namespace}:tenants", tenant)
        return ((own and _limits(own)) or NO_LIMITS).over(self._limits)

    def strays(self) -> list[Stray]:
        """Return what was put aside in the last 7 days, oldest first: 100 at most, and what is not logged yet."""
        notes: list[bytes] = []
        for name in ("stray:noted", "stray"):
            try:
                notes += self._redis.lrange(f"{self._namespace}:{name}", 0, -1)
            except redis.ResponseError as error:
                # Another's key in this place; the next script puts it aside.
                if not str(error).startswith("WRONGTYPE"):
                    raise
        return [parse_stray(note) for note in notes]

    def failures(self, *, minutes: int) -> dict[str, int]:
        """Count the jobs that failed in this minute and the ones before (60 at most), by code; most frequent first."""
        seconds, _ = self._redis.time()
        this = seconds // 60
        with self._redis.pipeline(transaction=False) as pipeline:
            for minute in range(this - minutes + 1, this + 1):
                pipeline.hgetall(f"{self._namespace}:failures:{minute}")
            rows = pipeline.execute()
        counts: Counter[str] = Counter()
        for row in rows:
            counts.update({code.decode(): int(count) for code, count in row.items()})
        return dict(counts.most_common())

    def totals(self) -> dict[tuple[str, str], int]:
        """Count the ends of jobs since the namespace began, by state and, for ``failed``, by code (else empty).

        A job that is sent again and ends again counts again. Ends under releases that did not count them are missing,
        and so is what others have written there.
        """
        try:
            stored = self._redis.hgetall(f"{self._namespace}:totals")
        except redis.ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            stored = {}
        counts: dict[tuple[str, str], int] = {}
        for name, count in stored.items():
            state, _, code = name.decode("utf-8", "replace").partition(":")
            if count.isdigit():
                counts[state, code] = int(count)
        return counts

    def _record(self, job_id: str) -> str:
        return f"{self._namespace}:job:{job_id}"

    def _rows(self, job_ids: Sequence[str], fields: Sequence[str]) -> list[list[bytes | None]]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hmget(self._record(job_id), fields)
            answers = pipeline.execute(raise_on_error=False)
        return [_row(answer, fields) for answer in answers]


def job_state(value: bytes) -> JobState:
    """Return the public state for the ledger's own name of one."""
    name = value.decode()
    return _PUBLIC_STATE.get(name) or JobState(name)


def no_such_record(job_id: str) -> JobNotFound:
    """Return the error for a job that has no record."""
    return JobNotFound(
        f"No job {job_id} is known: it was never submitted to this Redis and namespace, or it ended so long ago that "
        "its record's time to live (MASKSCORE_RESULT_TTL_S) has passed."
    )


def parse_stray(note: bytes) -> Stray:
    """Read a note that a script left of what it put aside."""
    read = json.loads(note.decode("utf-8", "replace"))
    return Stray(from_milliseconds(int(read["at"])), read["where"], read["id"], read["why"])


def _limits(text: bytes) -> TenantLimits | None:
    # What others have written there is removed and reported by the scripts.
    try:
        return TenantLimits(**json.loads(text))
    except (ValueError, TypeError):
        return None


def _reasons(lines: bytes | None) -> list[Reason]:
    reasons = []
    for line in (lines or b"").splitlines():
        reason = json.loads(line)
        reasons.append(
            Reason(from_milliseconds(reason["at"]), reason["code"], reason["message"], reason["worker"] or None)
        )
    return reasons


def _row(answer: Any, fields: Sequence[str]) -> list[bytes | None]:
    # A key that is no record of a job is none; the scripts put it aside. It is no reason to keep back the others'.
    if isinstance(answer, redis.ResponseError) and "WRONGTYPE" in str(answer):
        return [None] * len(fields)
    if isinstance(answer, Exception):
        raise answer
    return list(answer)


def _status(job_id: str, row: Sequence[bytes | None]) -> JobStatus | None:
    state, attempts, retries, submitted_at, claimed_at, finished_at, worker, batches, code, message, progress = row
    if state is None or attempts is None or submitted_at is None:
        return None
    public = job_state(state)
    error = _ENDED_WITHOUT_RESULT.get(public)
    if code is not None:
        error = Failure(code=code.decode(), message=(message or b"").decode())
    return JobStatus(
        job_id=job_id,
        state=public,
        attempts=int(attempts),
        retries=int(retries or 0),
        submitted_at=from_milliseconds(submitted_at),
        claimed_at=from_milliseconds(claimed_at) if claimed_at else None,
        finished_at=from_milliseconds(finished_at) if finished_at else None,
        worker=worker.decode() if worker else None,
        batch_id=batches.decode().split()[0] if batches else None,
        error=error,
        progress=ShardProgress(*map(int, progress.split())) if progress else None,
    )
