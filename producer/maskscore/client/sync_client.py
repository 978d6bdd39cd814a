"""The client: submit jobs and batches, follow them, score their masks again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_never, wait_fixed

from maskscore.broker import redis_errors
from maskscore.client.batch import Batch
from maskscore.client.categories import copy_categories, copy_categories_of_parts
from maskscore.client.content_id import with_content_id
from maskscore.client.job_client import JobClient, JobHandle
from maskscore.client.polling import Polling, pages
from maskscore.client.rescore import Rescoring, ScoringChanges
from maskscore.client.submitter import Submitter
from maskscore.errors import QueueFull
from maskscore.ledger import BatchLedger, BatchSummary
from maskscore.schema import Head, Job, JobResult, Method, PromptSet, Shard, SigmoidThresholds, Thresholds
from maskscore.settings import ClientSettings
from maskscore.storage import load_result_or_error

__all__ = ["Client", "full_queue_retries"]

_Work = TypeVar("_Work", Job, Job | Shard)
_FULL_QUEUE_WAIT_S = 0.5


class Client(JobClient):
    """A producer's side of the service; safe to share between threads, not between processes.

    Parameters
    ----------
    settings: where Redis is, and so on; read from ``MASKSCORE_…`` variables where not given.
    overrides: single settings by name (``redis_url="redis://…"``), above the environment's.

    Every method raises :class:`~maskscore.errors.ServiceUnavailable` when Redis does not answer after a bounded retry.
    """

    def __init__(self, settings: ClientSettings | None = None, **overrides: Any) -> None:
        super().__init__(settings, **overrides)
        self._batches = BatchLedger(self._redis, namespace=self.settings.namespace)
        self._submit = Submitter(self.settings, self._ledger, self.objects)

    def batch(self, batch_id: str) -> Batch:
        """Return a batch submitted before, perhaps by another process. Asks nothing yet."""
        return Batch(self, self._batches, batch_id)

    def batches(self) -> list[BatchSummary]:
        """Return the batches that are kept, the latest first.

        Redis looks at each of its keys for it, a few thousand at a time: seconds for ten million jobs.
        """
        summaries = []
        with redis_errors(self.settings):
            for batch_id in set(self._batches.all()):
                counts = self._batches.counts(batch_id)
                if counts is not None:
                    summaries.append(BatchSummary(batch_id, counts, self._batches.submitted_at(batch_id)))
        long_ago = datetime.min.replace(tzinfo=UTC)
        return sorted(summaries, key=lambda batch: (batch.submitted_at or long_ago, batch.batch_id), reverse=True)

    def submit(self, job: Job, *, content_id: bool = False, retry_failed: bool = False) -> JobHandle:
        """Submit one job and return at once.

        Repeating a submit (same ``job_id``, same document) is safe: it is the same job. With ``content_id`` the id is
        made of what the job is (see :func:`~maskscore.client.with_content_id`), so that the same work is done once.
        With ``retry_failed`` a job that was submitted before and ended without a result runs again (:meth:`requeue`),
        with the document that is given now, which may be another one.

        Raises :class:`~maskscore.errors.JobConflict` for the same id with another document otherwise,
        :class:`~maskscore.errors.TooManyBatches` for a job that is in 1,000 batches already,
        :class:`~maskscore.errors.QueueFull` at ``MASKSCORE_QUEUE_LIMIT``, and
        :class:`~maskscore.errors.PayloadTooLarge` for inline masks too large for Redis where no spill is set.
        """
        if content_id:
            job = with_content_id(job, self.objects)
        self._submit([job], job.batch_id, retry_failed)
        return self.handle(job.job_id)

    def submit_shard(self, shard: Shard, *, retry_failed: bool = False) -> JobHandle:
        """Submit one shard and return at once; it is a job under its ``shard_id``.

        :meth:`status` has its ``progress``, and its result a ``shard`` and no components. :meth:`cancel` stops it at
        its next image; its committed parts stay. With ``retry_failed`` a shard that was submitted before and ended
        without a result goes on after its last part, or starts anew where the document is another one. Raises as
        :meth:`submit` does.
        """
        self._submit([shard], shard.batch_id, retry_failed)
        return self.handle(shard.shard_id)

    def submit_many(
        self,
        jobs: Iterable[Job | Shard],
        *,
        batch_id: str | None = None,
        content_id: bool = False,
        wait_for_room: bool = False,
        retry_failed: bool = False,
    ) -> Batch:
        """Submit jobs or shards as a batch, some hundred per round trip, and return it; raises as :meth:`submit` does.

        Under a ``batch_id`` of its own (a new one where it is not given) a producer that died on the way runs again and
        submits what is missing. A job that was submitted before, in another batch, joins this one with what became of
        it; with ``retry_failed`` it runs again if it ended without a result. ``wait_for_room`` waits while the queue is
        full, for as long as it takes, instead of raising :class:`~maskscore.errors.QueueFull`. Shards keep their
        ids with ``content_id``.
        """
        batch_id = batch_id or uuid.uuid4().hex
        submit = Retrying(**full_queue_retries(wait_for_room))
        for page in pages(jobs):
            submit(self._submit, self._named(page, batch_id, content_id), batch_id, retry_failed)
        return self.batch(batch_id)

    def rescore(
        self,
        jobs: Batch | Iterable[str],
        *,
        prompts: str | PromptSet | None = None,
        thresholds: Thresholds | SigmoidThresholds | Mapping[str, float] | None = None,
        method: Method | None = None,
        top_k: int | None = None,
        head: str | Head | None = None,
        model: str | None = None,
        embeddings: bool | None = None,
        result_uri: str | None = None,
        batch_id: str | None = None,
        wait_for_room: bool = False,
    ) -> Batch:
        """Submit jobs again with other prompts, thresholds, a head and so on, as a new batch, and return it.

        ``jobs`` is a batch or the ids of jobs; what is not given stays as it was in each job, the ``model``, too
        (``default``: that of workers without a name). Workers with a cache of features (``MASKSCORE_FEATURE_CACHE``)
        need no forward for it: a result's ``cached`` counts the masks that came from there. The same question is the
        same job, so that a rescore that was interrupted can be repeated. A shard becomes a shard with parts of the same
        names below ``result_uri``: its images are read again, and those of cached features need no forward.

        Raises :class:`~maskscore.errors.JobNotFound` for a job whose record is gone,
        :class:`~maskscore.errors.InvalidDocumentError` where a result would overwrite an earlier one
        (``result_uri``), :class:`pydantic.ValidationError` for bad values, and as :meth:`submit_many` does.
        """
        changes = ScoringChanges(prompts, thresholds, method, top_k, head, model, embeddings)
        rescoring = Rescoring(changes, result_uri)
        ids = jobs.job_ids() if isinstance(jobs, Batch) else jobs
        again = (job for page in pages(ids) for job in rescoring.jobs(self._jobs_and_shards(page)))
        batch = self.submit_many(again, batch_id=batch_id, wait_for_room=wait_for_room)
        copy_categories(map(self.batch, rescoring.source_batches), batch)
        copy_categories_of_parts(self.objects, rescoring.source_outputs, result_uri or "")
        return batch

    def as_completed(self, handles: Batch | Iterable[JobHandle], timeout: float | None = None) -> Iterator[JobResult]:
        """Yield each job's result when it has ended, in any state; the first to end comes first.

        A batch is followed through its events, see :meth:`maskscore.Batch.as_completed`; other jobs are polled. Where a
        result is lost, or its place holds another job's, it has an ``error`` and no components. Raises
        :class:`~maskscore.errors.WaitTimeout` when ``timeout`` seconds (counted from the first ``next``) have passed
        and jobs are still going.
        """
        if isinstance(handles, Batch):
            yield from handles.as_completed(timeout)
            return
        for step in self._polled(Polling((handle.job_id for handle in handles), timeout)):
            if isinstance(step, JobResult):
                yield step
            else:
                time.sleep(step)

    def _polled(self, polling: Polling) -> Iterator[JobResult | float]:
        """Yield the results of the jobs that have ended, and the seconds to sleep before the next step."""
        while window := polling.window():
            ended = polling.ended(self.statuses(window))
            for job_id, record in zip(ended, self.records(ended), strict=True):
                yield load_result_or_error(record, self.objects) if record else self.get(job_id)
            if polling.timed_out:
                raise self._wait_timeout(polling.timeout_message(), window)
            yield polling.pause_s()

    def batch_tenant(self, batch_id: str) -> str | None:
        """Return whose a batch is: the tenant of its first job; ``None`` for an unknown batch."""
        with redis_errors(self.settings):
            return self._batches.tenant_of(batch_id)

    def _known_batches(self, names: list[str]) -> set[str]:
        with redis_errors(self.settings):
            return {name for name, known in zip(names, self._batches.known(names), strict=True) if known}

    def _named(self, jobs: list[_Work], batch_id: str, content_id: bool) -> list[_Work]:
        named = [job if job.batch_id else job.model_copy(update={"batch_id": batch_id}) for job in jobs]
        if not content_id:
            return named
        return [with_content_id(job, self.objects) if isinstance(job, Job) else job for job in named]


def full_queue_retries(wait_for_room: bool) -> dict[str, Any]:
    """Return tenacity's options for submitting to a queue that may be full: one try, or as many as it takes."""
    return {
        "retry": retry_if_exception_type(QueueFull),
        "stop": stop_never if wait_for_room else stop_after_attempt(1),
        "wait": wait_fixed(_FULL_QUEUE_WAIT_S),
        "reraise": True,
    }
