"""Reads the input of a report: a job's result, with its image and masks if they can still be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from maskscore.client import Batch, Client, read_masks_document, scored_masks
from maskscore.errors import FailureCode, JobError, JobNotFound, ResultUnavailable
from maskscore.formats import MasksDocumentError, UnreadableMask
from maskscore.ledger import JobRecord
from maskscore.schema import Failure, Job, JobResult, JobState, Mask
from maskscore.storage import Objects, load_result

__all__ = [
    "ReportEntry",
    "batch_entries",
    "collect_entries",
    "job_entries",
    "raise_unless_permanent",
    "unrestricted_objects",
]

_MAX_BYTES = 1 << 28
_PAGE = 50


@dataclass(frozen=True, slots=True)
class ReportEntry:
    """One job. ``image`` is the file's bytes, ``masks`` are in the job's order; ``missing`` says what is not there.

    With ``masks_of_components`` each component has a mask of its own, also a connected part of a mask.
    """

    job: Job | None
    result: JobResult
    image: bytes | None
    masks: list[Mask | UnreadableMask] = field(default_factory=list)
    missing: str | None = None
    masks_of_components: bool = False


def collect_entries(client: Client, job_ids: Iterable[str]) -> list[ReportEntry]:
    """Return what :func:`job_entries` yields, all of it at once."""
    return list(job_entries(client, job_ids))


def job_entries(client: Client, job_ids: Iterable[str]) -> Iterator[ReportEntry]:
    """Read what the report needs of ended jobs, one after the other, with this process's own access to files.

    An image or masks that cannot be read any more leave the scores to show. Raises as
    :meth:`maskscore.Client.get` does, and :class:`~maskscore.errors.JobError` (transient) where a store is away.
    """
    with unrestricted_objects() as objects:
        for job_id in job_ids:
            yield _entry(client, client.get(job_id), objects)


def batch_entries(client: Client, batch: Batch) -> Iterator[ReportEntry]:
    """Read what the report needs of a batch, in the order of submission, a few jobs at a time.

    A job that has not ended is shown as where it is, one whose record or result is gone as ``result_expired`` or
    with why it cannot be read. Raises :class:`~maskscore.errors.BatchNotFound` and
    :class:`~maskscore.errors.ServiceUnavailable`, and :class:`~maskscore.errors.JobError` (transient) where a store is
    away.
    """
    batch.counts()
    ids = batch.job_ids()
    with unrestricted_objects() as objects:
        while page := list(islice(ids, _PAGE)):
            for job_id, record in zip(page, client.records(page), strict=True):
                yield _recorded(client, job_id, record, objects)


@contextmanager
def unrestricted_objects() -> Iterator[Objects]:
    """Provide what reads all objects and files that this process may read."""
    objects = Objects(buckets=None, result_buckets=(), file_roots=[Path("/")])
    try:
        yield objects
    finally:
        objects.close()


def _recorded(client: Client, job_id: str, record: JobRecord | None, objects: Objects) -> ReportEntry:
    if record is None:
        message = "The job's record was kept for its time to live (MASKSCORE_RESULT_TTL_S) and is gone."
        error = Failure(code=FailureCode.RESULT_EXPIRED, message=message)
        return ReportEntry(None, JobResult(job_id=job_id, state=JobState.EXPIRED, error=error), None)
    state = record.status.state
    if not state.ended:
        return ReportEntry(None, JobResult(job_id=job_id, state=state), None)
    try:
        return _entry(client, load_result(record, client.objects), objects)
    except ResultUnavailable as unavailable:
        raise_unless_permanent(unavailable.__cause__)
        return ReportEntry(None, JobResult(job_id=job_id, state=state), None, missing=str(unavailable))


def _entry(client: Client, result: JobResult, objects: Objects) -> ReportEntry:
    try:
        job = client.job(result.job_id)
    except (JobNotFound, JobError):
        return ReportEntry(None, result, None, missing="The job's document is gone, and with it where its masks are.")
    if result.image is None:
        return ReportEntry(job, result, None)
    try:
        image = objects.read(job.image.uri, what="image", max_bytes=_MAX_BYTES, etag=result.image.etag).data
    except JobError as error:
        raise_unless_permanent(error)
        return ReportEntry(job, result, None, missing=f"The image cannot be read any more. {error}")
    try:
        return ReportEntry(job, result, image, scored_masks(job, read_masks_document(job, objects), result.image))
    except (JobError, MasksDocumentError) as error:
        raise_unless_permanent(error)
        return ReportEntry(job, result, image, missing=f"The masks cannot be read any more. {error}")


def raise_unless_permanent(error: BaseException | None) -> None:
    """Raise an error that is no object's fault."""
    # A store that is away for a while is no reason to show a report in which everything is missing.
    if isinstance(error, JobError) and error.input_may_be_fine:
        raise error
