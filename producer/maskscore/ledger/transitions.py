"""The ledger: one record per job in Redis, and the transitions of its state."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, cast

import redis

from maskscore.broker import (
    Lane,
)
from maskscore.ledger.ledger_reader import LedgerReader, job_state, no_such_record, parse_stray
from maskscore.ledger.records import (
    Claim,
    Submission,
    Submitted,
    SweepResult,
    from_milliseconds,
)
from maskscore.ledger.scripts import Scripts
from maskscore.schema import Failure, JobState

__all__ = ["Ledger"]


class Ledger(LedgerReader):
    """The jobs of one namespace.

    Parameters
    ----------
    client: a :class:`redis.Redis` that returns bytes; Redis 7 or newer.
    namespace: prefix of every key.
    ttl_s: seconds that the record of an ended job is kept.

    Every method raises :class:`redis.RedisError` when Redis does not answer.
    """

    def __init__(self, client: redis.Redis, *, namespace: str, ttl_s: float) -> None:
        super().__init__(client, namespace=namespace)
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
        same claim. The reason is ``suspect`` for a job that may end its worker or break its device: it is given only
        to a caller in whose process nothing else runs (``alone``). Otherwise it is ``unknown`` or the state it is in.
        """
        answer: list[Any] = self._script("claim", job_id, token, worker, int(lease_s * 1000), "1" if alone else "0")
        if answer[0] != b"claimed":
            return str(answer[0].decode())
        _, attempt, retries, now, submitted_at, document, trace = answer
        times = from_milliseconds(submitted_at), from_milliseconds(now)
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

    def release(self, claim: Claim, *, device_fault: str = "") -> Lane | None:
        """Give a job back unfinished, which costs it no attempt; ``device_fault`` says how its worker's device broke.

        A job that three devices broke under is a suspect, and ``poisoned`` where the next breaks although it ran alone.

        Returns the lane of the message that it needs; ``None`` where it needs none (it was cancelled, has expired or
        is poisoned, or this attempt was not the current one any more).
        """
        return _lane_if_waiting(*self._script("release", claim.job_id, claim.token, device_fault))

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job and return the state it is in now.

        A queued job is ``cancelled`` at once; a running one stays ``running`` until its worker's next step; an ended
        one stays as it is. Raises :class:`~maskscore.errors.JobNotFound`.
        """
        (state,) = self.cancel_many([job_id])
        if state is None:
            raise no_such_record(job_id)
        return state

    def cancel_many(self, job_ids: Iterable[str]) -> list[JobState | None]:
        """Cancel jobs in one round trip; return the state each is in now, ``None`` for unknown ones."""
        answers = self._script.many("cancel", [(job_id,) for job_id in job_ids])
        return [job_state(after) if before else None for before, after in answers]

    def requeue(self, job_id: str) -> tuple[JobState, Lane]:
        """Let a job that failed, was cancelled or expired wait again, with all its attempts and without an expiry.

        Returns the state it was in before, and the lane of the message that it needs if that was an ended one
        without a result; else nothing was changed. Raises :class:`~maskscore.errors.JobNotFound`.
        """
        before, lane, _ = self._script("requeue", job_id, "")
        if not before:
            raise no_such_record(job_id)
        return job_state(before), cast(Lane, lane.decode())

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
        """Handle lapsed leases, due retries, expiries and lost messages.

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
        return SweepResult(
            True, lapsed, poisoned, due, expired, stranded, messages, [parse_stray(note) for note in notes]
        )

    def resend(self, job_id: str) -> Lane | None:
        """Let a job whose message was taken, but which was not begun, wait again.

        Returns the lane of the message that it needs; ``None`` where it does not wait any more.
        """
        return _lane_if_waiting(*self._script("resend", job_id))


def new_token() -> str:
    """Return a token for one attempt."""
    return uuid.uuid4().hex


def _lane_if_waiting(state: bytes, lane: bytes) -> Lane | None:
    return cast(Lane, lane.decode()) if state == b"waiting" else None


def _submitted(answer: bytes, state: bytes | int) -> Submitted:
    if answer in (b"new", b"known"):
        return Submitted.WAITING if state == b"waiting" else Submitted.KNOWN
    return Submitted(answer.decode())
