"""The results of jobs that succeeded, one after the other, with what their documents leave out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from maskscore.client.job_client import JobClient
from maskscore.client.polling import pages
from maskscore.errors import FailureCode, JobNotFound
from maskscore.schema import JobResult, JobState
from maskscore.storage import load_result_or_error

__all__ = ["scored_results", "views_text_of"]


def scored_results(client: JobClient, job_ids: Iterable[str], without_result: Counter[str]) -> Iterator[JobResult]:
    """Yield the results of the jobs that have succeeded, in the order of the ids; count the others by code.

    Jobs that have not ended are counted as ``not_ended``. Raises :class:`~maskscore.errors.ServiceUnavailable` when
    Redis does not answer, and :class:`~maskscore.errors.ResultUnavailable` while a result's store does not.
    """
    for page in pages(job_ids):
        for record in client.records(page):
            if record is None:
                without_result[FailureCode.RESULT_EXPIRED] += 1
            elif not record.status.state.ended:
                without_result["not_ended"] += 1
            else:
                result = load_result_or_error(record, client.objects)
                if result.state is JobState.SUCCEEDED and result.error is None:
                    yield result
                else:
                    without_result[result.error.code if result.error else str(result.state)] += 1


def views_text_of(client: JobClient, result: JobResult) -> str | None:
    """Return the view of a result as text; the alpha of a specified view, which a result leaves out, the job says."""
    if result.views or result.treatment != "soft_mask":
        return result.views_text
    try:
        return client.job(result.job_id).options.views_text
    except JobNotFound:
        return result.views_text
