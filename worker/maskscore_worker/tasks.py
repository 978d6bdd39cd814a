"""The one Celery task: claim, pipeline, store, finish. Nothing else in the worker knows Celery, but ``main``."""

from __future__ import annotations

import logging

from celery import Celery

from maskscore.document import unpack
from maskscore.errors import FailureCode, JobError
from maskscore.job import parse_job
from maskscore.ledger import Claim, Ledger
from maskscore.queue import TASK_NAME
from maskscore.result import Failure
from maskscore.settings import WorkerSettings
from maskscore.store import StoredResult, store_result
from maskscore_worker.leases import JobStopped, LeaseHolder, Leases
from maskscore_worker.pipeline import Pipeline

__all__ = ["register"]

log = logging.getLogger(__name__)


def register(app: Celery, settings: WorkerSettings, ledger: Ledger, leases: Leases, pipeline: Pipeline) -> None:
    """Register the task under the name that producers send."""

    def score(job_id: str) -> None:
        claim = ledger.claim(job_id, worker=pipeline.worker, lease_s=settings.lease_s)
        if claim is None:
            log.debug("job %s: nothing to do (unknown, taken, ended, cancelled or expired)", job_id)
            return
        with leases.hold(claim) as holder:
            error, stored = _attempt(pipeline, claim, holder)
            finished = ledger.finish(claim, result=stored.data, result_uri=stored.uri, error=error)
        if not finished:
            log.warning("job %s: attempt %d is not the current one any more; dropped", job_id, claim.attempt)

    app.task(name=TASK_NAME, ignore_result=True)(score)


def _attempt(pipeline: Pipeline, claim: Claim, holder: LeaseHolder) -> tuple[Failure | None, StoredResult]:
    """Run the job once; whatever happens inside becomes an outcome, so that no job is left without one."""
    try:
        job = parse_job(unpack(claim.document))
        result = pipeline.run(job, claim, holder.check)
        stored = store_result(job, result, pipeline.objects)
    except JobError as error:
        log.info("job %s failed: %s: %s", claim.job_id, error.code, error)
        return Failure(code=error.code, message=str(error)), StoredResult(None, None)
    except JobStopped as stopped:
        log.info("job %s stopped: %s", claim.job_id, stopped.reason)
        return Failure(code="cancelled", message=f"The job was stopped: {stopped.reason}."), StoredResult(None, None)
    except Exception as error:
        log.exception("job %s failed: internal error", claim.job_id)
        return Failure(
            code=FailureCode.INTERNAL_ERROR,
            message=f"An unexpected {type(error).__name__} stopped the job: {error}. The worker's log has the details; "
            "please report it.",
        ), StoredResult(None, None)
    skipped = sum(component.skipped is not None for component in result.components)
    log.info(
        "job %s succeeded: %d masks scored, %d skipped, %.3f s",
        claim.job_id,
        len(result.components) - skipped,
        skipped,
        result.timings.total if result.timings else 0.0,
    )
    return None, stored
