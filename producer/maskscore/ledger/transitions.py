"""The ledger: one record per job in Redis, and the transitions of its state."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final

import redis

from maskscore.broker import DEFAULT_MODEL
from maskscore.ledger.ledger_reader import LedgerReader, job_state, no_such_record, parse_stray
from maskscore.ledger.records import (
    Claim,
    ShardProgress,
    Submission,
    Submitted,
    SweepResult,
    TenantLimits,
    Unclaimed,
    from_milliseconds,
)
from maskscore.schema import Failure, JobState
from maskscore.settings import ClientSettings

__all__ = ["Ledger", "new_token", "open_ledger"]

# By one script, which Redis answers nobody else meanwhile: a few milliseconds.
_CANCELLED_AT_ONCE: Final = 100


class Ledger(LedgerReader):
    """The jobs of one namespace.

    Parameters
    ----------
    client: a :class:`redis.Redis` that returns bytes; Redis 7 or newer.
    namespace: prefix of every key.
    ttl_s: seconds that the record of an ended job is kept.
    limits: of tenants that have none of their own.

    Every method raises :class:`redis.RedisError` when Redis does not answer.
    """

    def submit(self, submissions: Sequence[Submission], *, queue_limit: int | None = None) -> list[Submitted]:
        """Write down jobs, in one round trip, and return what became of each.

        A known id with the same document is the same job; where it brings another batch, it joins that one, too. One
        that still waits gets another ticket: one too many costs nothing. ``queue_limit`` is the most jobs that may be
        queued in the namespace.
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
                    job.tenant or "",
                    job.model,
                    "" if job.masks is None else job.masks,
                    "1" if job.apart else "",
                )
                for job in submissions
            ],
        )
        return [_submitted(*answer) for answer in answers]

    def claim(
        self, *, token: str, worker: str, lease_s: float, model: str = DEFAULT_MODEL, alone: bool = False
    ) -> Claim | Unclaimed:
        """Take the next job of a model to run, or return why there is none.

        Next is the one of the highest priority; within it, of the tenant whose turn it is, by their weights; of it,
        the oldest. ``token`` is the caller's own for this attempt: asking again with it, after an answer that was
        lost, gives the same claim. ``Unclaimed.SUSPECT``: next is a job that may end its worker or break its device.
        Such jobs are given only to a caller in whose process nothing else runs (``alone``), which is given no others.
        Others are not told of it for a tenth of ``lease_s``, and asking again with the token starts that time anew: so
        one worker at a time waits until it is alone, and one that is killed meanwhile holds the job up for no longer.
        """
        arguments = (token, worker, int(lease_s * 1000), model, "1" if alone else "0")
        answer: list[Any] = self._script("claim", *arguments)
        while answer[0] == b"more":
            answer = self._script("claim", *arguments)
        if answer[0] != b"claimed":
            return Unclaimed(answer[0].decode())
        _, job_id, attempt, retries, now, submitted_at, trace, document, cursor, poisoned = answer
        return Claim(
            job_id.decode(),
            token,
            int(attempt),
            int(retries),
            document,
            from_milliseconds(submitted_at),
            from_milliseconds(now),
            trace.decode() or None,
            cursor,
            frozenset(map(int, poisoned.split())),
        )

    def commit(self, claim: Claim, *, lease_s: float, cursor: bytes, progress: ShardProgress) -> str:
        """Note where a shard goes on after a part that is stored, and renew its lease; attempts count from there.

        Returns ``committed``; ``cancelled`` (committed, but stop soon); ``yield`` (committed, and a job of a higher
        priority waits: give the shard back); ``lost`` (nothing was changed: stop at once). Repeating a commit, after an
        answer that was lost, is safe.
        """
        counts = progress.images, progress.masks, progress.parts
        answer: bytes = self._script("commit", claim.job_id, claim.token, int(lease_s * 1000), cursor, *counts)
        return answer.decode()

    def try_alone(self, claim: Claim, position: int) -> bool:
        """Note that a shard's image is begun while no other one is, since attempts have ended with their worker.

        Where this one ends so, too, and attempts are used up, the image is ``poisoned``, and later claims say so.
        Returns whether the claim still holds.
        """
        return bool(self._script("trial", claim.job_id, claim.token, position) == b"noted")

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
        masks: int | None = None,
    ) -> JobState | None:
        """End a job as ``failed`` where there is an ``error``, else as ``succeeded``; return the state it ended in.

        ``masks``: how many it had, which its tenant's bucket is corrected by. The state is ``cancelled`` where the
        submitter asked for it meanwhile. ``None``: this attempt was not the current
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
            "" if masks is None else masks,
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

    def release(self, claim: Claim, *, device_fault: str = "") -> bool:
        """Give a job back unfinished, which costs it no attempt; ``device_fault`` says how its worker's device broke.

        A job that three devices broke under is a suspect, and ``poisoned`` where the next breaks although it ran alone.

        Returns whether it waits for another worker now: not where it was cancelled, has expired or is poisoned, or
        this attempt was not the current one any more.
        """
        return bool(self._script("release", claim.job_id, claim.token, device_fault) == b"waiting")

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
        ids = list(job_ids)
        pages = [ids[start : start + _CANCELLED_AT_ONCE] for start in range(0, len(ids), _CANCELLED_AT_ONCE)]
        states = [state for answer in self._script.many("cancel", pages) for state in answer]
        return [job_state(after) if before else None for before, after in zip(states[::2], states[1::2], strict=True)]

    def requeue(self, job_id: str) -> JobState:
        """Let a job that failed, was cancelled or expired wait again, with all its attempts and without an expiry.

        Returns the state it was in before; where that was not an ended one without a result, nothing was changed.
        Raises :class:`~maskscore.errors.JobNotFound`.
        """
        before, _ = self._script("requeue", job_id, "")
        if not before:
            raise no_such_record(job_id)
        return job_state(before)

    def requeue_many(self, job_ids: Sequence[str], *, codes: Iterable[str] = ()) -> list[str]:
        """Let those of the jobs wait again that ended without a result, in one round trip.

        With ``codes``, only those that ended with one of them. Returns the jobs that wait again; unknown ones are
        passed over.
        """
        wanted = " ".join(codes)
        answers = self._script.many("requeue", [(job_id, wanted) for job_id in job_ids])
        return [job_id for job_id, (_, again) in zip(job_ids, answers, strict=True) if again]

    def drop(self, job_id: str) -> bool:
        """Take a job off the list of dead letters; return whether it was there."""
        return bool(self._script("drop", job_id))

    def sweep(self, *, sweeper: str, lock_s: float, max_attempts: int, limit: int) -> SweepResult:
        """Handle lapsed leases, due retries and expiries, and send the tickets that are missing.

        Only one ``sweeper`` at a time does it; the lock is its for ``lock_s`` seconds from its last round. At most
        ``limit`` jobs per kind are handled in one round.
        """
        held, *rest = self._script("sweep", sweeper, int(lock_s * 1000), limit, max_attempts)
        if not held:
            return SweepResult(held=False)
        lapsed, poisoned, due, expired, missing, more, notes = rest
        strays = [parse_stray(note) for note in notes]
        return SweepResult(True, lapsed, poisoned, due, expired, missing, bool(more), strays)

    def set_tenant(self, tenant: str, limits: TenantLimits) -> None:
        """Set a tenant's weight and limits; the defaults take it off the list of those that have any.

        Its bucket is full then, whatever it has taken before.
        """
        key = f"{self._namespace}:tenants"
        with self._redis.pipeline(transaction=True) as pipeline:
            if limits == TenantLimits():
                pipeline.hdel(key, tenant)
            else:
                pipeline.hset(key, tenant, limits.text())
            pipeline.zrem(f"{self._namespace}:buckets", tenant)
            # It takes turns again with the next script that claims or sweeps.
            pipeline.zadd(f"{self._namespace}:paused", {tenant: 0}, xx=True)
            pipeline.execute()


def open_ledger(client: redis.Redis, settings: ClientSettings) -> Ledger:
    """Return the ledger of a deployment, with its limits for tenants that have none of their own."""
    limits = TenantLimits(
        most_queued=settings.tenant_max_queued,
        most_running=settings.tenant_max_running,
        masks_per_second=settings.tenant_masks_per_second,
    )
    return Ledger(client, namespace=settings.namespace, ttl_s=settings.result_ttl_s, limits=limits)


def new_token() -> str:
    """Return a token for one attempt."""
    return uuid.uuid4().hex


def _submitted(answer: bytes, state: bytes | int) -> Submitted:
    if answer in (b"new", b"known"):
        return Submitted.WAITING if state == b"waiting" else Submitted.KNOWN
    return Submitted(answer.decode())
