"""One attempt of a job, from the claim to the outcome in the ledger; whatever happens inside becomes an outcome."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import redis

from maskscore.connection import will_pass
from maskscore.document import unpack
from maskscore.errors import FailureCode, JobError, ServiceUnavailable
from maskscore.job import parse_job
from maskscore.ledger import Claim, Lane, Ledger, new_token
from maskscore.result import Failure, JobState
from maskscore.settings import WorkerSettings
from maskscore.store import StoredResult, store_result
from maskscore_worker.company import Company
from maskscore_worker.drain import Drain
from maskscore_worker.leases import JobStopped, LeaseHolder, Leases
from maskscore_worker.patience import patiently
from maskscore_worker.pipeline import Pipeline

__all__ = ["Attempts", "backoff_s"]

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _Failed:
    failure: Failure
    passing: bool


@dataclass(frozen=True, slots=True)
class _Stopped:
    reason: str


_Outcome = StoredResult | _Failed | _Stopped


class Attempts:
    """Runs the jobs whose messages come in.

    Parameters
    ----------
    send: puts a message for a job into the queue; raises :class:`~maskscore.errors.ServiceUnavailable`.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        ledger: Ledger,
        leases: Leases,
        company: Company,
        drain: Drain,
        pipeline: Pipeline,
        send: Callable[[str, Lane], None],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._leases = leases
        self._company = company
        self._drain = drain
        self._pipeline = pipeline
        self._send = send
        self.taken = 0
        """Messages that came in, whatever became of them."""

    def run(self, job_id: str) -> None:
        """Take the job, if there is anything to do, and bring it to an outcome."""
        self.taken += 1
        token = new_token()
        with self._company.beside_others():
            answer = self._take(job_id, token, alone=False)
        if answer != "suspect":
            return
        log.info("job %s is run alone: its last attempt ended with its worker", job_id)
        with self._company.alone():
            self._take(job_id, token, alone=True)

    def release_all(self) -> int:
        """Give back every job in flight, which costs none an attempt; return how many waited for another worker then.

        Those that end at the same moment end as they do.
        """
        released = 0
        for holder in self._leases.held():
            holder.stop_reason = "released"
            lane = self._ledger.release(holder.claim)
            if lane is not None:
                released += 1
                self._send(holder.claim.job_id, lane)
        return released

    def _take(self, job_id: str, token: str, *, alone: bool) -> str:
        if self._drain.draining:
            self._pass_on(job_id)
            return "draining"
        answer = self._until_answered(
            lambda: self._ledger.claim(
                job_id, token=token, worker=self._pipeline.worker, lease_s=self._settings.lease_s, alone=alone
            ),
            f"claim job {job_id}",
        )
        if isinstance(answer, str):
            log.debug("job %s: nothing to do: %s", job_id, answer)
            return answer
        with self._leases.hold(answer) as holder:
            outcome = self._attempt(answer, holder)
            holder.computing = False
            self._record(answer, outcome)
        return "done"

    def _pass_on(self, job_id: str) -> None:
        """Send the message of a job that was not begun again, for another worker."""
        try:
            lane = self._ledger.resend(job_id)
            if lane is not None:
                self._send(job_id, lane)
        except (redis.RedisError, ServiceUnavailable) as error:
            # It counts as stranded in a few seconds.
            log.warning("the message of job %s could not be passed on: %s", job_id, error)

    def _attempt(self, claim: Claim, holder: LeaseHolder) -> _Outcome:
        try:
            job = parse_job(unpack(claim.document))
            if job.job_id != claim.job_id:
                message = (
                    f"The document of job {claim.job_id} is that of {job.job_id}: it was not written by maskscore."
                )
                raise JobError(FailureCode.DOCUMENT_INVALID, message)
            result = self._pipeline.run(job, claim, holder.check)
            stored = patiently(lambda: store_result(job, result, self._pipeline.objects), holder.check)
        except JobError as error:
            return _Failed(Failure(code=error.code, message=str(error)), error.passing)
        except JobStopped as stopped:
            return _Stopped(stopped.reason)
        except MemoryError:
            message = "The worker's memory was used up. Give it more, or lower MASKSCORE_CONCURRENCY."
            return _Failed(Failure(code=FailureCode.OUT_OF_MEMORY, message=message), passing=True)
        # Not only Exception: a job that is left without an outcome would be run again and again.
        except BaseException as error:
            log.exception("job %s failed: internal error", claim.job_id)
            message = (
                f"An unexpected {type(error).__name__} stopped the job: {error}. The worker's log has the details; "
                "please report it."
            )
            return _Failed(Failure(code=FailureCode.INTERNAL_ERROR, message=message), passing=False)
        skipped = sum(component.skipped is not None for component in result.components)
        seconds = result.timings.total if result.timings else 0.0
        log.info(
            "job %s: %d masks scored, %d skipped, %.3f s",
            claim.job_id,
            len(result.components) - skipped,
            skipped,
            seconds,
        )
        return stored

    def _record(self, claim: Claim, outcome: _Outcome) -> None:
        if isinstance(outcome, StoredResult):
            self._finish(claim, result=outcome.data, result_uri=outcome.uri)
        elif isinstance(outcome, _Failed):
            self._fail(claim, outcome)
        elif outcome.reason == "cancelled":
            self._finish(claim, error=Failure(code=FailureCode.CANCELLED, message="The job was cancelled."))
        else:
            log.info("job %s stopped here: %s", claim.job_id, outcome.reason)

    def _fail(self, claim: Claim, failed: _Failed) -> None:
        code = failed.failure.code
        if not failed.passing:
            self._finish(claim, error=failed.failure)
            return
        delay_s = backoff_s(claim.retries, first_s=self._settings.retry_first_s, most_s=self._settings.retry_most_s)
        state = self._until_answered(
            lambda: self._ledger.retry(
                claim,
                failed.failure,
                worker=self._pipeline.worker,
                delay_s=delay_s,
                max_retries=self._settings.max_retries,
                retry_for_s=self._settings.retry_for_s,
            ),
            f"put job {claim.job_id} aside",
        )
        if state == "delayed":
            log.info("job %s is tried again in %.1f s: %s: %s", claim.job_id, delay_s, code, failed.failure.message)
        elif state == "exhausted":
            message = f"{failed.failure.message} It was tried {claim.retries + 1} times and is kept as a dead letter."
            self._finish(claim, error=Failure(code=code, message=message), dead_letter=True)

    def _finish(self, claim: Claim, *, error: Failure | None = None, **outcome: Any) -> None:
        what = f"store the outcome of job {claim.job_id}"
        try:
            state = self._until_answered(lambda: self._ledger.finish(claim, error=error, **outcome), what)
        except redis.ResponseError as refused:
            if error is not None or will_pass(refused):
                raise
            message = f"Redis did not take the result: {refused}. Give the job a `result_uri`, or fewer masks."
            error = Failure(code=FailureCode.RESULT_NOT_STORED, message=message)
            state = self._until_answered(lambda: self._ledger.finish(claim, error=error), what)
        if state is None:
            log.warning("job %s: another attempt is the current one; this one's outcome is dropped", claim.job_id)
        elif state is not JobState.SUCCEEDED:
            log.info("job %s %s%s", claim.job_id, state, f": {error.code}: {error.message}" if error else "")

    def _until_answered(self, call: Callable[[], Answer], what: str) -> Answer:
        """Call until Redis answers: what was computed is worth waiting with, and nothing else can be done without it.

        Raises the :class:`redis.RedisError` of a command that Redis refuses for good, or when the worker has to end.
        """
        pause = 0.1
        while True:
            try:
                return call()
            except redis.RedisError as error:
                if not will_pass(error):
                    raise
                log.warning("Redis did not %s, trying again in %.1f s: %s", what, pause, error)
                if not self._drain.pause(pause):
                    raise
                pause = min(pause * 2, 5.0)


def backoff_s(retries: int, *, first_s: float, most_s: float) -> float:
    """Return the seconds before the next try: doubled each time, and up to half of it taken off at random.

    Without the jitter, all jobs that met the same fault would come back at the same moment.
    """
    return float(min(most_s, first_s * 2 ** min(retries, 60)) * random.uniform(0.5, 1.0))
