"""Where results live: packed in the job's record in Redis, or as a JSON object that the record points to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pydantic import ValidationError

from maskscore.errors import FailureCode, JobError, ResultOfAnotherJob, ResultUnavailable
from maskscore.ledger import JobRecord
from maskscore.schema import Failure, Job, JobResult, JobState, explain, pack, unpack
from maskscore.storage.store import Objects

__all__ = ["StoredResult", "load_result", "load_result_or_error", "result_uri", "store_result"]

# A result is read back whole; this bounds what a wrong object behind the URI can cost.
_MAX_RESULT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class StoredResult:
    """What the ledger keeps of a result: its bytes, or the URI of the object that holds it."""

    data: bytes | None
    uri: str | None


def result_uri(job: Job) -> str | None:
    """Return the URI of the object that the job's result goes to; ``None`` where it stays in Redis."""
    if job.result_uri is None:
        return None
    return job.result_uri + f"{job.job_id}.json" if job.result_uri.endswith("/") else job.result_uri


def store_result(job: Job, result: JobResult, objects: Objects) -> StoredResult:
    """Store a result where its job wants it.

    Raises :class:`~maskscore.errors.JobError` when the object cannot be written; ``result_exists`` where the
    ``result_uri`` is an object that holds something else than a result of this job. An earlier attempt's is replaced.
    """
    uri = result_uri(job)
    if uri is None:
        return StoredResult(pack(result), None)
    data = result.model_dump_json().encode()
    if uri != job.result_uri:
        # The key has the job's id in it: no other job's result can be there.
        objects.write(uri, data, content_type="application/json")
    else:
        objects.write_new(uri, data, content_type="application/json", replaces=partial(_belongs_to, uri, job.job_id))
    return StoredResult(None, uri)


def _belongs_to(uri: str, job_id: str, found: bytes) -> None:
    """Raise ``result_exists`` where ``found`` is something else than a result of the job."""
    try:
        whose = JobResult.model_validate_json(found).job_id
    except ValidationError:
        whose = None
    if whose != job_id:
        there = f"the result of job {whose}" if whose else "an object that is no result"
        raise JobError(
            FailureCode.RESULT_EXISTS,
            f"{uri} holds {there}, which is not overwritten. Give each job a `result_uri` of its own, or a prefix that "
            "ends in '/', such as s3://bucket/results/: the job's id is added to it.",
        )


def load_result(record: JobRecord, objects: Objects) -> JobResult:
    """Return the result of an ended job; for one without a result, what the ledger knows of it.

    Raises :class:`~maskscore.errors.ResultUnavailable` when the job has not ended, or its object is gone, and
    :class:`~maskscore.errors.ResultOfAnotherJob` when the object holds another job's.
    """
    status = record.status
    if not status.state.ended:
        raise ResultUnavailable(f"Job {status.job_id} has not ended: it is {status.state}.")
    if status.state is not JobState.SUCCEEDED:
        return JobResult(
            job_id=status.job_id,
            batch_id=status.batch_id,
            state=status.state,
            error=status.error,
            attempts=status.attempts,
            worker=status.worker,
            submitted_at=status.submitted_at,
            finished_at=status.finished_at,
        )
    try:
        if record.result is not None:
            document = unpack(record.result, max_bytes=_MAX_RESULT_BYTES)
        elif record.result_uri is not None:
            document = objects.read(record.result_uri, what="result", max_bytes=_MAX_RESULT_BYTES).data
        else:
            raise ValueError("the record holds neither a result nor the place of one")
        result = JobResult.model_validate_json(document)
    except JobError as error:
        place = record.result_uri or "what Redis holds of it"
        hint = "Try again later." if error.input_may_be_fine else f"The job ended well, but {place} cannot be read."
        raise ResultUnavailable(f"The result of job {status.job_id} is not available: {error} {hint}") from error
    except ValidationError as error:
        raise ResultUnavailable(f"The stored result of job {status.job_id} is not valid: {explain(error)}.") from error
    except ValueError as error:
        raise ResultUnavailable(f"The stored result of job {status.job_id} is damaged: {error}.") from error
    if result.job_id != status.job_id:
        raise ResultOfAnotherJob(
            f"The result of job {status.job_id} is lost: {record.result_uri or 'its record'} holds that of job "
            f"{result.job_id}, which was written later. Score it again under a new id, with a `result_uri` of its own "
            "or one that ends in '/'."
        )
    return result.model_copy(update={"finished_at": status.finished_at})


def load_result_or_error(record: JobRecord, objects: Objects) -> JobResult:
    """Return :func:`load_result`'s; for a result that is lost, one with an ``error`` that says so, and no components.

    Raises :class:`~maskscore.errors.ResultUnavailable` where the job has not ended, or the store does not answer or may
    not be read: a later try may find the result.
    """
    status = record.status
    try:
        return load_result(record, objects)
    except ResultUnavailable as error:
        unread = isinstance(error.__cause__, JobError) and error.__cause__.code != FailureCode.RESULT_NOT_STORED
        if unread or not status.state.ended:
            raise
        return JobResult(
            job_id=status.job_id,
            batch_id=status.batch_id,
            state=status.state,
            error=Failure(code=error.code, message=str(error)),
            finished_at=status.finished_at,
        )
