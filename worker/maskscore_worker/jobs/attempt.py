"""One attempt of a job, from the claim to the outcome in the ledger; whatever happens inside becomes an outcome."""

from __future__ import annotations

import errno
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import redis

from maskscore.broker import (
    Lane,
    is_transient,
)
from maskscore.errors import FailureCode, JobError, ServiceUnavailable
from maskscore.ledger import (
    Claim,
    Ledger,
    new_token,
)
from maskscore.observability import Tracing, job_logged
from maskscore.schema import Failure, Job, JobResult, JobState, parse_job, unpack
from maskscore.settings import WorkerSettings
from maskscore.storage import StoredResult, store_result
from maskscore_worker.cancellation import patiently
from maskscore_worker.jobs.exclusive_gate import Company
from maskscore_worker.jobs.leases import JobStopped, LeaseHolder, Leases
from maskscore_worker.jobs.shutdown import Drain
from maskscore_worker.jobs.worker_faults import WorkerFaults
from maskscore_worker.model import DeviceBroken, is_out_of_memory
from maskscore_worker.pipeline import Pipeline
from maskscore_worker.telemetry import Meter, Stopwatch

__all__ = ["Attempts", "backoff_s"]

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# What the whole machine has too little of for a while: memory, processes and threads, file handles, room on a disk.
_SCARCE = (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class _Scored:
    stored: StoredResult
    scored: int
    skipped: Counter[str]


@dataclass(frozen=True, slots=True)
class _Failed:
    failure: Failure
    transient: bool
    of_worker: bool = False


@dataclass(frozen=True, slots=True)
class _Stopped:
    reason: str


_Outcome = _Scored | _Failed | _Stopped


@dataclass(frozen=True, slots=True)
class _Ended:
    """How the ledger took the outcome: what the metrics and the traces show."""

    outcome: str
    code: str = ""
    message: str = ""


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
        faults: WorkerFaults,
        pipeline: Pipeline,
        meter: Meter,
        tracing: Tracing | None,
        send: Callable[[str, Lane], None],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._leases = leases
        self._company = company
        self._drain = drain
        self._faults = faults
        self._pipeline = pipeline
        self._meter = meter
        self._tracing = tracing
        self._send = send
        self._changed = threading.Condition()
        self._claiming = 0
        self.taken = 0
        """Messages that came in, whatever became of them."""

    def run(self, job_id: str) -> None:
        """Take the job, if there is anything to do, and bring it to an outcome."""
        self.taken += 1
        token = new_token()
        self._faults.wait()
        with job_logged(job_id):
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
        held = self._leases.held()
        # None of them goes on, however long it takes to give back the others.
        for holder in held:
            holder.stop_reason = "released"
        released = 0
        for holder in held:
            released += self._release(holder.claim)
        return released

    def begin_nothing_more(self, timeout_s: float) -> bool:
        """Wait until no job is between its message and its lease; return whether that was so in time.

        Call it when the device is known to be broken: new messages are passed on then.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._claiming, timeout_s)

    def _release(self, claim: Claim) -> bool:
        """Give a job back at no cost of an attempt; return whether it waits for another worker now."""
        try:
            lane = self._ledger.release(claim)
            if lane is not None:
                self._send(claim.job_id, lane)
        except Exception as error:
            # Its lease lapses, or its message counts as lost; the others need not wait for that.
            log.warning("job %s could not be given back at once: %s", claim.job_id, error)
            return False
        return lane is not None

    def _take(self, job_id: str, token: str, *, alone: bool) -> str:
        watch = Stopwatch()
        with ExitStack() as held:
            with self._counted_as_claiming():
                if self._drain.draining or self._pipeline.device_check.reason is not None:
                    self._pass_on(job_id)
                    return "draining"
                with watch.stage("claim"):
                    answer = self._until_answered(
                        lambda: self._ledger.claim(
                            job_id,
                            token=token,
                            worker=self._pipeline.worker,
                            lease_s=self._settings.lease_s,
                            alone=alone,
                        ),
                        f"claim job {job_id}",
                    )
                if isinstance(answer, str):
                    log.debug("job %s: nothing to do: %s", job_id, answer)
                    return answer
                self._meter.claimed(answer)
                holder = held.enter_context(self._leases.hold(answer))
            outcome = self._attempt(answer, holder, watch)
            holder.computing = False
            with watch.stage("store"):
                ended = self._record(answer, outcome)
        self._meter.ended(ended.outcome, ended.code, watch)
        if isinstance(outcome, _Scored) and ended.outcome == "succeeded":
            self._meter.scored(outcome.skipped, outcome.scored)
            self._faults.over()
        if self._tracing:
            self._trace(answer, ended, watch)
        return "done"

    @contextmanager
    def _counted_as_claiming(self) -> Iterator[None]:
        with self._changed:
            self._claiming += 1
        try:
            yield
        finally:
            with self._changed:
                self._claiming -= 1
                self._changed.notify_all()

    def _trace(self, claim: Claim, ended: _Ended, watch: Stopwatch) -> None:
        assert self._tracing is not None
        self._tracing.attempt(
            claim.traceparent,
            begin_ns=watch.begin_ns,
            end_ns=watch.now_ns(),
            stages={
                name: (stage.begin_ns, stage.end_ns, stage.seconds, stage.failed)
                for name, stage in watch.stages.items()
            },
            attributes={
                "maskscore.job_id": claim.job_id,
                "maskscore.attempt": claim.attempt,
                "maskscore.retries": claim.retries,
                "maskscore.worker": self._pipeline.worker,
                "maskscore.outcome": ended.outcome,
                **({"maskscore.code": ended.code} if ended.code else {}),
            },
            error=ended.message if ended.code else None,
        )

    def _pass_on(self, job_id: str) -> None:
        """Send the message of a job that was not begun again, for another worker."""
        try:
            lane = self._ledger.resend(job_id)
            if lane is not None:
                self._send(job_id, lane)
        except (redis.RedisError, ServiceUnavailable) as error:
            # It counts as stranded in a few seconds.
            log.warning("the message of job %s could not be passed on: %s", job_id, error)

    def _attempt(self, claim: Claim, holder: LeaseHolder, watch: Stopwatch) -> _Outcome:
        try:
            job = parse_job(unpack(claim.document))
            if job.job_id != claim.job_id:
                message = (
                    f"The document of job {claim.job_id} is that of {job.job_id}: it was not written by maskscore."
                )
                raise JobError(FailureCode.DOCUMENT_INVALID, message)
            result = self._pipeline.run(job, claim, holder.check, watch)
            with watch.stage("store"):
                stored = self._store(job, result, holder)
        except JobError as error:
            return _Failed(Failure(code=error.code, message=str(error)), error.input_may_be_fine, error.of_worker)
        except JobStopped as stopped:
            return _Stopped(stopped.reason)
        except DeviceBroken as broken:
            return self._given_back(claim, broken)
        except OSError as error:
            if error.errno not in _SCARCE:
                return _internal(claim.job_id, error)
            message = f"The worker's machine ran short of something: {error}. Look at its limits and its load."
            return _Failed(Failure(code=FailureCode.OUT_OF_MEMORY, message=message), transient=True, of_worker=True)
        # Not only Exception: a job that is left without an outcome would be run again and again.
        except BaseException as error:
            if is_out_of_memory(error):
                what = "worker's" if isinstance(error, MemoryError) else "device's"
                message = f"The {what} memory was used up. Give it more, or lower MASKSCORE_CONCURRENCY."
                return _Failed(Failure(code=FailureCode.OUT_OF_MEMORY, message=message), transient=True)
            try:
                self._pipeline.device_check.after(error)
            except DeviceBroken as broken:
                return self._given_back(claim, broken)
            return _internal(claim.job_id, error)
        skipped = Counter(component.skipped.code for component in result.components if component.skipped is not None)
        scored = len(result.components) - skipped.total()
        seconds = result.timings.total if result.timings else 0.0
        log.info(
            "job %s: %d masks scored, %d skipped, %.3f s",
            claim.job_id,
            scored,
            skipped.total(),
            seconds,
        )
        return _Scored(stored, scored, skipped)

    def _given_back(self, claim: Claim, broken: DeviceBroken) -> _Stopped:
        log.info("job %s is given back: %s", claim.job_id, broken)
        self._release(claim)
        return _Stopped("released")

    def _store(self, job: Job, result: JobResult, holder: LeaseHolder) -> StoredResult:
        if job.result_uri is None:
            return store_result(job, result, self._pipeline.objects)
        return patiently(lambda: store_result(job, result, self._pipeline.objects), holder.check)

    def _record(self, claim: Claim, outcome: _Outcome) -> _Ended:
        if isinstance(outcome, _Scored):
            return self._finish(claim, result=outcome.stored.data, result_uri=outcome.stored.uri)
        if isinstance(outcome, _Failed):
            return self._fail(claim, outcome)
        if outcome.reason == "cancelled":
            return self._finish(claim, error=Failure(code=FailureCode.CANCELLED, message="The job was cancelled."))
        log.info("job %s stopped here: %s", claim.job_id, outcome.reason)
        return _Ended("released" if outcome.reason == "released" else "dropped")

    def _fail(self, claim: Claim, failed: _Failed) -> _Ended:
        code, message = failed.failure.code, failed.failure.message
        if failed.of_worker:
            log.error("this worker is at fault, and takes jobs more slowly until one succeeds: %s", message)
            self._faults.met(message)
        if not failed.transient:
            return self._finish(claim, error=failed.failure)
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
            log.info("job %s is tried again in %.1f s: %s: %s", claim.job_id, delay_s, code, message)
            return _Ended("retried", code, message)
        if state == "exhausted":
            last = f"{message} It was tried {claim.retries + 1} times and is kept as a dead letter."
            return self._finish(claim, error=Failure(code=code, message=last), dead_letter=True)
        return _Ended(state or "dropped")

    def _finish(self, claim: Claim, *, error: Failure | None = None, **outcome: Any) -> _Ended:
        what = f"store the outcome of job {claim.job_id}"
        try:
            state = self._until_answered(lambda: self._ledger.finish(claim, error=error, **outcome), what)
        except redis.ResponseError as refused:
            # What Redis's user may not do says nothing about the result: the job comes back when its lease has lapsed.
            if error is not None or is_transient(refused) or isinstance(refused, redis.exceptions.NoPermissionError):
                raise
            message = f"Redis did not take the result: {refused}. Give the job a `result_uri`, or fewer masks."
            error = Failure(code=FailureCode.RESULT_NOT_STORED, message=message)
            state = self._until_answered(lambda: self._ledger.finish(claim, error=error), what)
        if state is None:
            log.warning("job %s: another attempt is the current one; this one's outcome is dropped", claim.job_id)
            return _Ended("dropped")
        if state is not JobState.SUCCEEDED:
            log.info("job %s %s%s", claim.job_id, state, f": {error.code}: {error.message}" if error else "")
        if state is JobState.FAILED and error is not None:
            return _Ended("failed", error.code, error.message)
        return _Ended(str(state))

    def _until_answered(self, call: Callable[[], Answer], what: str) -> Answer:
        """Call until Redis answers: what was computed is worth waiting with, and nothing else can be done without it.

        Raises the :class:`redis.RedisError` of a command that Redis refuses for good, or when the worker has to end.
        """
        pause = 0.1
        while True:
            try:
                return call()
            except redis.RedisError as error:
                if not is_transient(error):
                    raise
                log.warning("Redis did not %s, trying again in %.1f s: %s", what, pause, error)
                if not self._drain.pause(pause):
                    raise
                pause = min(pause * 2, 5.0)


def _internal(job_id: str, error: BaseException) -> _Failed:
    log.exception("job %s failed: internal error", job_id)
    message = (
        f"An unexpected {type(error).__name__} stopped the job: {error}. The worker's log has the details; please "
        "report it."
    )
    return _Failed(Failure(code=FailureCode.INTERNAL_ERROR, message=message), transient=False)


def backoff_s(retries: int, *, first_s: float, most_s: float) -> float:
    """Return the seconds before the next try: doubled each time, and up to half of it taken off at random.

    Without the jitter, all jobs that met the same fault would come back at the same moment.
    """
    return float(min(most_s, first_s * 2 ** min(retries, 60)) * random.uniform(0.5, 1.0))
