"""The outcome of one attempt: what the pipeline returns or raises, and how the ledger records it."""

from __future__ import annotations

import errno
import logging
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import redis

from maskscore.broker import is_transient
from maskscore.errors import FailureCode, JobError
from maskscore.ledger import Claim, Ledger
from maskscore.schema import Failure, JobResult, JobState, is_shard, pack, parse_job, parse_shard, unpack
from maskscore.settings import WorkerSettings
from maskscore.storage import StoredResult
from maskscore_worker.jobs.exclusive_gate import ExclusiveGate
from maskscore_worker.jobs.leases import JobStopped, LeaseHolder
from maskscore_worker.jobs.redis_waiting import until_redis_answers
from maskscore_worker.jobs.shard_attempt import ShardAttempts
from maskscore_worker.jobs.shutdown import Shutdown
from maskscore_worker.jobs.worker_faults import WorkerFaults
from maskscore_worker.model import DeviceBroken, is_out_of_memory
from maskscore_worker.pipeline import Pipeline
from maskscore_worker.telemetry import StageTimer, WorkerMetrics

__all__ = ["Attempts", "Recorded", "backoff_s"]

log = logging.getLogger(__name__)

# What the whole machine lacks for a while: memory, processes and threads, file handles, disk space.
_SCARCE = (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class _Scored:
    stored: StoredResult
    masks: int
    scored: int = 0
    skipped: Counter[str] | None = None


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
class Recorded:
    """The outcome as the ledger took it: ``succeeded``, ``failed`` with a code, ``retried``, ``dropped`` and so on.

    ``scored`` counts the masks that were scored and ``skipped`` the others, by code; those of a shard are counted with
    its parts.
    """

    outcome: str
    code: str = ""
    message: str = ""
    scored: int = 0
    skipped: Counter[str] | None = None


class Attempts:
    """Runs claimed jobs, one attempt at a time; whatever happens inside becomes an outcome."""

    def __init__(
        self,
        settings: WorkerSettings,
        ledger: Ledger,
        gate: ExclusiveGate,
        shutdown: Shutdown,
        faults: WorkerFaults,
        pipeline: Pipeline,
        metrics: WorkerMetrics,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._shutdown = shutdown
        self._faults = faults
        self._pipeline = pipeline
        self._shards = ShardAttempts(settings, ledger, gate, shutdown, pipeline, metrics)

    def run(self, claim: Claim, holder: LeaseHolder, timer: StageTimer, *, alone: bool = False) -> Recorded:
        """Run a job under its lease and record its outcome; ``alone``: nothing else runs in this process."""
        outcome = self._outcome(claim, holder, timer, alone)
        holder.computing = False
        with timer.stage("store"):
            return self._record(claim, outcome)

    def _outcome(self, claim: Claim, holder: LeaseHolder, timer: StageTimer, alone: bool) -> _Outcome:
        try:
            document = unpack(claim.document)
            if is_shard(document):
                shard = parse_shard(document)
                _check_id(claim, shard.shard_id)
                return self._scored_shard(claim, self._shards.run(shard, claim, holder, alone=alone))
            job = parse_job(document)
            _check_id(claim, job.job_id)
            result, stored = self._pipeline.run(job, claim, holder.check, timer)
        except JobError as error:
            return _Failed(Failure(code=error.code, message=str(error)), error.input_may_be_fine, error.of_worker)
        except JobStopped as stopped:
            return _Stopped(stopped.reason)
        except DeviceBroken as broken:
            return self._released(claim, broken)
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
                self._pipeline.device_check.probe_after(error)
            except DeviceBroken as broken:
                return self._released(claim, broken)
            return _internal(claim.job_id, error)
        skipped = Counter(component.skipped.code for component in result.components if component.skipped is not None)
        scored = len(result.components) - skipped.total()
        seconds = result.timings.total if result.timings else 0.0
        log.info("job %s: %d masks scored, %d skipped, %.3f s", claim.job_id, scored, skipped.total(), seconds)
        return _Scored(stored, len(result.components), scored, skipped)

    def _scored_shard(self, claim: Claim, result: JobResult) -> _Scored:
        assert result.shard is not None
        counts, parts = result.shard.counts, result.shard.parts
        log.info(
            "shard %s: %d masks of %d images in %d parts, %d images failed",
            claim.job_id,
            counts.masks,
            counts.images,
            parts,
            counts.failed,
        )
        return _Scored(StoredResult(pack(result), None), counts.masks)

    def _released(self, claim: Claim, broken: DeviceBroken) -> _Stopped:
        log.info("job %s stops here: %s", claim.job_id, broken)
        self._shutdown.release(claim, device_fault=str(broken))
        return _Stopped("released")

    def _record(self, claim: Claim, outcome: _Outcome) -> Recorded:
        if isinstance(outcome, _Scored):
            stored = outcome.stored
            recorded = self._finish(claim, result=stored.data, result_uri=stored.uri, masks=outcome.masks)
            if recorded.outcome != "succeeded":
                return recorded
            self._faults.clear()
            return Recorded("succeeded", scored=outcome.scored, skipped=outcome.skipped)
        if isinstance(outcome, _Failed):
            return self._fail(claim, outcome)
        if outcome.reason == "cancelled":
            return self._finish(claim, error=Failure(code=FailureCode.CANCELLED, message="The job was cancelled."))
        log.info("job %s stopped here: %s", claim.job_id, outcome.reason)
        return Recorded("released" if outcome.reason == "released" else "dropped")

    def _fail(self, claim: Claim, failed: _Failed) -> Recorded:
        code, message = failed.failure.code, failed.failure.message
        if failed.of_worker:
            log.error("this worker is at fault, and takes jobs more slowly until one succeeds: %s", message)
            self._faults.record(message)
        if not failed.transient:
            return self._finish(claim, error=failed.failure)
        delay_s = backoff_s(claim.retries, first_s=self._settings.retry_first_s, most_s=self._settings.retry_most_s)
        state = until_redis_answers(
            lambda: self._ledger.retry(
                claim,
                failed.failure,
                worker=self._pipeline.worker,
                delay_s=delay_s,
                max_retries=self._settings.max_retries,
                retry_for_s=self._settings.retry_for_s,
            ),
            f"put job {claim.job_id} aside",
            self._shutdown,
        )
        if state == "delayed":
            log.info("job %s is tried again in %.1f s: %s: %s", claim.job_id, delay_s, code, message)
            return Recorded("retried", code, message)
        if state == "exhausted":
            last = f"{message} It was tried {claim.retries + 1} times and is kept as a dead letter."
            return self._finish(claim, error=Failure(code=code, message=last), dead_letter=True)
        return Recorded(state or "dropped")

    def _finish(self, claim: Claim, *, error: Failure | None = None, **outcome: Any) -> Recorded:
        what = f"store the outcome of job {claim.job_id}"
        try:
            state = until_redis_answers(
                lambda: self._ledger.finish(claim, error=error, **outcome), what, self._shutdown
            )
        except redis.ResponseError as refused:
            # What Redis's user may not do says nothing about the result: the job comes back when its lease has lapsed.
            if error is not None or is_transient(refused) or isinstance(refused, redis.exceptions.NoPermissionError):
                raise
            message = f"Redis did not take the result: {refused}. Give the job a `result_uri`, or fewer masks."
            error = Failure(code=FailureCode.RESULT_NOT_STORED, message=message)
            state = until_redis_answers(lambda: self._ledger.finish(claim, error=error), what, self._shutdown)
        if state is None:
            log.warning("job %s: another attempt is the current one; this one's outcome is dropped", claim.job_id)
            return Recorded("dropped")
        if state is not JobState.SUCCEEDED:
            log.info("job %s %s%s", claim.job_id, state, f": {error.code}: {error.message}" if error else "")
        if state is JobState.FAILED and error is not None:
            return Recorded("failed", error.code, error.message)
        return Recorded(str(state))


def _check_id(claim: Claim, found: str) -> None:
    if found != claim.job_id:
        message = f"The document of job {claim.job_id} is that of {found}: it was not written by maskscore."
        raise JobError(FailureCode.DOCUMENT_INVALID, message)


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
