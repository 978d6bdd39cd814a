"""The results of jobs and of shards as tables of Arrow, with the columns that parts have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from maskscore import results
from maskscore.client.job_client import JobClient
from maskscore.client.polling import pages
from maskscore.client.shards_of_jobs import are_shards, committed_shards
from maskscore.errors import FailureCode, JobError, JobNotFound
from maskscore.ledger import JobRecord
from maskscore.parts import ImageOutcome, outcome_tables
from maskscore.results import Table
from maskscore.schema import Failure, JobResult, JobState
from maskscore.storage import load_result_or_error

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["table_of_jobs"]


def table_of_jobs(client: JobClient, job_ids: Iterable[str], table: Table, columns: Sequence[str] | None) -> pa.Table:
    """Return a table of the masks or images of jobs, or of what shards have committed.

    Raises as :meth:`maskscore.Batch.to_arrow` does.
    """
    ids = iter(job_ids)
    first = list(islice(ids, 1))
    if are_shards(client, first):
        outcomes = committed_shards(client, chain(first, ids)).outcomes
        return results.open(outcomes, table).to_table(columns=None if columns is None else list(columns))
    tables, position = [], 0
    for page in pages(chain(first, ids)):
        outcomes_of_page = [
            _outcome(client, job_id, record) for job_id, record in zip(page, client.records(page), strict=True)
        ]
        tables.append(_table(outcomes_of_page, position, table, columns))
        position += len(page)
    return results.concatenated(tables or [_table([], 0, table, columns)])


def _table(outcomes: list[ImageOutcome], position: int, table: Table, columns: Sequence[str] | None) -> pa.Table:
    vectors = (one.embedding_vector() for outcome in outcomes for one in outcome.result.components)
    size = next((len(vector) for vector in vectors if vector is not None), None)
    masks, images = outcome_tables(outcomes, first_position=position, dimensions=size)
    found = masks if table == "masks" else images
    # A field of upstream tools may be in the jobs of another page alone.
    return found if columns is None else found.select([name for name in columns if name in found.schema.names])


def _outcome(client: JobClient, job_id: str, record: JobRecord | None) -> ImageOutcome:
    if record is None:
        error = Failure(code=FailureCode.RESULT_EXPIRED, message="The job's record is gone.")
        result = JobResult(job_id=job_id, state=JobState.EXPIRED, error=error)
    elif not record.status.state.ended:
        result = JobResult(job_id=job_id, batch_id=record.status.batch_id, state=record.status.state)
    else:
        result = load_result_or_error(record, client.objects)
    if result.image is not None:
        return ImageOutcome(
            result, result.image.uri, segmentations=[None] * len(result.components), etag=result.image.etag
        )
    try:
        image = client.job(job_id).image.uri
    except (JobNotFound, JobError):
        image = None
    return ImageOutcome(result, image)
