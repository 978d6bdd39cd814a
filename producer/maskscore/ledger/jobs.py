"""The ledger: one record per job in Redis, and what may happen to it."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import redis

from maskscore.broker import (
    LANES,
    Lane,
)
from maskscore.errors import JobNotFound
from maskscore.ledger.records import (
    Backlog,
    Claim,
    DeadLetter,
    JobRecord,
    JobStatus,
    Reason,
    Stray,
    Submission,
    Submitted,
    SweepResult,
    moment,
)
from maskscore.ledger.scripts import Scripts
from maskscore.schema import Failure, JobState

__all__ = ["Ledger"]

_PUBLIC_STATE = {"waiting": JobState.QUEUED, "delayed": JobState.QUEUED}
_ENDED_WITHOUT_RESULT = {
    JobState.CANCELLED: Failure(code="cancelled", message="The job was cancelled by its submitter."),
    JobState.EXPIRED: Failure(code="expired", message="The job was still queued when its `expires_in` had passed."),
}
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
)


class Ledger:
    """The jobs of one namespace.

    Parameters
    ----------
    client: a :class:`redis.Redis` that returns bytes; Redis 7 or newer.
    namespace: prefix of every key.
    ttl_s: seconds that the record of an ended job is kept.

    Every method raises :class:`redis.RedisError` when Redis does not answer.
    """

    def __init__(self, client: redis.Redis, *, namespace: str, ttl_s: float) -> None:
        self._redis: Any = client
        self._namespace = namespace
        self._script = Scripts(client, namespace=namespace, ttl_ms=int(ttl_s * 1000))

    def submit(self, submissions: Sequence[Submission], *, queue_limit: int | None = None) -> list[Submitted]:
        """Write down jobs, in one round trip, and return what became of each.

        A known id with the same document is the same job; where it brings another batch, it joins that one, too. One
        that still waits gets another message, since its first submit may have died before sending it: a message too
        many costs nothing. ``queue_limit`` is the most jobs that may be queued in the namespace.
        """
        answers = self._script.many(
            "submit",
            [
                (
                    job.job_id,
                    job.digest,
                    job.document,
                    job.batch_id or "",
                    job.priority,
                    "" if job.expires_in_s is None else int(job.expires_in_s * 1000),
                    "" if queue_limit is None else queue_limit,
                    job.traceparent or "",
                    job.replaces or "",
                )
                for job in submissions
            ],
        )
        return [_submitted(*answer) for answer in answers]

    def claim(self, job_id: str, *, token: str, worker: str, lease_s: float, alone: bool = False) -> Claim | str:
        """Take a job to run, or return why there is nothing to do.

        ``token`` is the caller's own for this attempt: asking again with it, after an answer that was lost, gives the
        same claim. The reason is ``suspect`` for a job whose last attempt ended with its worker: it is given only to
        a caller in whose process nothing else runs (``alone``). Otherwise it is ``unknown`` or the state it is in.
        """
        answer: list[Any] = self._script("claim", job_id, token, worker, int(lease_s * 1000), "1" if alone else "0")
        if answer[0] != b"claimed":
            return str(answer[0].decode())
        _, attempt, retries, now, submitted_at, document, trace = answer
        times = moment(submitted_at), moment(now)
        return Claim(job_id, token, int(attempt), int(retries), document, *times, trace.decode() or None)

    def renew(self, claims: Sequence[Claim], *, lease_s: float) -> list[str]:
        """Move the leases on; return for each ``renewed``, ``cancelled`` (stop soon) or ``lost`` (stop at once).

        A lease that has lapsed is renewed as well, as long as nobody else has taken the job.
        """
        calls = [(claim.job_id, claim.token, int(lease_s * 1000)) for claim in claims]
        answers = self._script.many("renew", calls, raise_on_error=False)
        # One that went wrong does not keep back what was answered of the others; it is asked again in the next round.
        if answers and all(isinstance(answer, Exception) for answer in answers):
            raise answers[0]
        return ["renewed" if isinstance(answer, Exception) else answer.decode() for answer in answers]

    def finish(
        self,
        claim: Claim,
        *,
        result: bytes | None = None,
        result_uri: str | None = None,
        error: Failure | None = None,
        dead_letter: bool = False,
    ) -> JobState | None:
        """End a job as ``failed`` where there is an ``error``, else as ``succeeded``; return the state it ended in.

        That is ``cancelled`` where its submitter asked for it meanwhile. ``None``: this attempt was not the current
        one any more, and nothing was changed.
        """
        state = JobState.SUCCEEDED if error is None else JobState.FAILED
        answer: bytes = self._script(
            "finish",
            claim.job_id,
            claim.token,
            str(state),
            result or b"",
            result_uri or "",
            error.code if error else "",
            error.message if error else "",
            "1" if dead_letter else "",
        )
        return JobState(answer.decode()) if answer else None

    def retry(
        self,
        claim: Claim,
        error: Failure,
        *,
        worker: str,
        delay_s: float,
        max_retries: int,
        retry_for_s: float,
    ) -> str | None:
        """Put a job that met a transient fault aside for ``delay_s`` seconds; the attempt does not count.

        Returns ``delayed``; ``exhausted`` where it has been retried ``max_retries`` times, or would be due later than
        ``retry_for_s`` seconds after its first fault, and is still running; ``cancelled`` or ``expired`` where it ended
        so; ``None`` where this attempt was not the current one any more.
        """
        answer: bytes = self._script(
            "retry",
            claim.job_id,
            claim.token,
            int(delay_s * 1000),
            max_retries,
            int(retry_for_s * 1000),
            worker,
            error.code,
            error.message,
        )
        return answer.decode() or None

    def release(self, claim: Claim) -> Lane | None:
        """Give a job back unfinished, which costs it no attempt.

        Returns the lane of the message that it needs; ``None`` where it needs none (it was cancelled or has
        expired, or this attempt was not the current one any more).
        """
        return _lane_if_waiting(*self._script("release", claim.job_id, claim.token))

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job and return the state it is in now.

        A queued job is ``cancelled`` at once; a running one stays ``running`` until its worker's next step; an ended
        one stays as it is. Raises :class:`~maskscore.errors.JobNotFound`.
        """
        (state,) = self.cancel_many([job_id])
        if state is None:
            raise _not_found(job_id)
        return state

    def cancel_many(self, job_ids: Iterable[str]) -> list[JobState | None]:
        """Cancel jobs in one round trip; return the state each is in now, ``None`` for unknown ones."""
        answers = self._script.many("cancel", [(job_id,) for job_id in job_ids])
        return [_state(after) if before else None for before, after in answers]

    def requeue(self, job_id: str) -> tuple[JobState, Lane]:
        """Let a job that failed, was cancelled or expired wait again, with all its attempts and without an expiry.

        Returns the state it was in before, and the lane of the message that it needs if that was an ended one
        without a result; else nothing was changed. Raises :class:`~maskscore.errors.JobNotFound`.
        """
        before, lane, _ = self._script("requeue", job_id, "")
        if not before:
            raise _not_found(job_id)
        return _state(before), cast(Lane, lane.decode())

    def requeue_many(self, job_ids: Sequence[str], *, codes: Iterable[str] = ()) -> list[tuple[str, Lane]]:
        """Let those of the jobs wait again that ended without a result, in one round trip.

        With ``codes``, only those that ended with one of them. Returns the jobs that wait again, each with the lane
        of the message that it needs; unknown ones are passed over.
        """
        wanted = " ".join(codes)
        answers = self._script.many("requeue", [(job_id, wanted) for job_id in job_ids])
        return [
            (job_id, cast(Lane, lane.decode()))
            for job_id, (_, lane, again) in zip(job_ids, answers, strict=True)
            if again
        ]

    def drop(self, job_id: str) -> bool:
        """Take a job off the list of dead letters; return whether it was there."""
        return bool(self._script("drop", job_id))

    def sweep(
        self,
        *,
        sweeper: str,
        lock_s: float,
        max_attempts: int,
        stranded_after_s: float,
        queue_keys: Sequence[str],
        limit: int,
    ) -> SweepResult:
        """Do what time alone brings about: lapsed leases, due retries, expiries, lost messages.

        Only one ``sweeper`` at a time does it; the lock is its for ``lock_s`` seconds from its last round.
        ``queue_keys`` are the Redis lists that hold the messages of each of the ``LANES``. At most ``limit`` jobs
        per kind are handled in one round. The caller sends the messages; where it dies before, the jobs count as
        stranded later.
        """
        held, *rest = self._script(
            "sweep", sweeper, int(lock_s * 1000), limit, max_attempts, int(stranded_after_s * 1000), *queue_keys
        )
        if not held:
            return SweepResult(held=False)
        lapsed, poisoned, due, expired, stranded, notes = rest[:6]
        texts = [text.decode() for text in rest[6:]]
        messages = [(job_id, cast(Lane, name)) for job_id, name in zip(texts[::2], texts[1::2], strict=True)]
        return SweepResult(True, lapsed, poisoned, due, expired, stranded, messages, [_stray(note) for note in notes])

    def resend(self, job_id: str) -> Lane | None:
        """Let a job whose message was taken, but which was not begun, wait again.

        Returns the lane of the message that it needs; ``None`` where it does not wait any more.
        """
        return _lane_if_waiting(*self._script("resend", job_id))

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

    def record(self, job_id: str) -> JobRecord:
        """Return a job's status and result. Raises :class:`~maskscore.errors.JobNotFound`."""
        (record,) = self.records([job_id])
        if record is None:
            raise _not_found(job_id)
        return record

    @contextmanager
    def watched(self, job_id: str) -> Iterator[Callable[[float], None]]:
        """Give a function that waits for the job's end, so many seconds at most.

        It may return early, and what happened while the connection was broken is not told again: look at the status
        before and after.
        """
        with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(f"{self._namespace}:ended:{job_id}")
            # The answer to the subscription: from here on, no end is missed.
            pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
            yield lambda seconds: pubsub.get_message(timeout=seconds)

    def document(self, job_id: str) -> bytes:
        """Return the job's document as submitted. Raises :class:`~maskscore.errors.JobNotFound`."""
        return self.documents([job_id])[0]

    def documents(self, job_ids: Sequence[str]) -> list[bytes]:
        """Return the jobs' documents, in one round trip. Raises :class:`~maskscore.errors.JobNotFound`."""
        documents = []
        for job_id, (document,) in zip(job_ids, self._rows(job_ids, ["document"]), strict=True):
            if document is None:
                raise _not_found(job_id)
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
        return DeadLetter(status, moment(int(died_at)), _reasons(reasons))

    def backlog(self) -> Backlog:
        """Count the jobs that have not ended, and the dead letters."""
        waiting_keys = [f"{self._namespace}:waiting:{lane}" for lane in LANES]
        with self._redis.pipeline(transaction=True) as pipeline:
            for key in (*waiting_keys, *(f"{self._namespace}:{name}" for name in ("running", "delayed", "dead"))):
                pipeline.zcard(key)
            for key in waiting_keys:
                pipeline.zrange(key, 0, 0, withscores=True)
            # Where the ledger's clock is, see `transition.lua`.
            pipeline.hget(f"{self._namespace}:clock", "ahead")
            pipeline.time()
            *answers, ahead, (seconds, micros) = pipeline.execute()
        oldest = [first[0][1] for first in answers[len(LANES) + 3 :] if first]
        age = seconds + micros / 1e6 + (float(ahead or 0) - min(oldest)) / 1000 if oldest else 0.0
        running, delayed, dead = answers[len(LANES) : len(LANES) + 3]
        return Backlog(sum(answers[: len(LANES)]), running, delayed, dead, max(0.0, age))

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


def new_token() -> str:
    """Return a token for one attempt."""
    return uuid.uuid4().hex


def _lane_if_waiting(state: bytes, lane: bytes) -> Lane | None:
    return cast(Lane, lane.decode()) if state == b"waiting" else None


def _submitted(answer: bytes, state: bytes | int) -> Submitted:
    if answer in (b"new", b"known"):
        return Submitted.WAITING if state == b"waiting" else Submitted.KNOWN
    return Submitted(answer.decode())


def _not_found(job_id: str) -> JobNotFound:
    return JobNotFound(
        f"No job {job_id} is known: it was never submitted to this Redis and namespace, or it ended so long ago that "
        "its record's time to live (MASKSCORE_RESULT_TTL_S) has passed."
    )


def _state(value: bytes) -> JobState:
    name = value.decode()
    return _PUBLIC_STATE.get(name) or JobState(name)


def _reasons(lines: bytes | None) -> list[Reason]:
    reasons = []
    for line in (lines or b"").splitlines():
        reason = json.loads(line)
        reasons.append(Reason(moment(reason["at"]), reason["code"], reason["message"], reason["worker"] or None))
    return reasons


def _row(answer: Any, fields: Sequence[str]) -> list[bytes | None]:
    # A key that is no record of a job is none; the scripts put it aside. It is no reason to keep back the others'.
    if isinstance(answer, redis.ResponseError) and "WRONGTYPE" in str(answer):
        return [None] * len(fields)
    if isinstance(answer, Exception):
        raise answer
    return list(answer)


def _stray(note: bytes) -> Stray:
    read = json.loads(note.decode("utf-8", "replace"))
    return Stray(moment(int(read["at"])), read["where"], read["id"], read["why"])


def _status(job_id: str, row: Sequence[bytes | None]) -> JobStatus | None:
    state, attempts, retries, submitted_at, claimed_at, finished_at, worker, batches, code, message = row
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
        retries=int(retries or 0),
        submitted_at=moment(submitted_at),
        claimed_at=moment(claimed_at) if claimed_at else None,
        finished_at=moment(finished_at) if finished_at else None,
        worker=worker.decode() if worker else None,
        batch_id=batches.decode().split()[0] if batches else None,
        error=error,
    )
