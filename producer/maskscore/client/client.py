"""The client: submit jobs, ask where they are, wait for and read their results."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from maskscore.broker import Sender, connect, make_app, redis_errors
from maskscore.client.batch import Batch
from maskscore.client.categories import carry_categories
from maskscore.client.content_id import digest_of, with_content_id
from maskscore.client.polling import PAGE, Polling
from maskscore.client.rescore import Changes, rescored
from maskscore.errors import (
    JobConflict,
    JobFailed,
    JobNotFound,
    PayloadTooLarge,
    QueueFull,
    TooManyBatches,
    WaitTimeout,
)
from maskscore.ledger import (
    Backlog,
    BatchLedger,
    BatchSummary,
    DeadLetter,
    JobRecord,
    JobStatus,
    Ledger,
    SeenWorker,
    Submission,
    Submitted,
    WorkerRegistry,
    no_worker_sentence,
)
from maskscore.observability import open_tracing
from maskscore.schema import Job, JobResult, JobState, MasksRef, Method, PromptSet, Thresholds, pack, parse_job, unpack
from maskscore.settings import ClientSettings, load_settings, warn_of_unknown_variables
from maskscore.storage import Objects, load_result, load_result_or_error

__all__ = ["ROOM_S", "Client", "JobHandle", "no_such_job", "not_ended", "succeeded"]

ROOM_S = 0.5
"""Seconds between two tries to submit to a full queue."""
# Ends are published at once; this is for an end while the connection was broken.
_LOOK_AGAIN_S = 1.0


class JobHandle:
    """One submitted job. Cheap: it holds the id and asks through its client."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client = client
        self.job_id = job_id

    def status(self) -> JobStatus:
        """Return where the job is; see :meth:`Client.status`."""
        return self._client.status(self.job_id)

    def wait(self, timeout: float | None = None) -> JobResult:
        """Wait for the result; see :meth:`Client.wait`."""
        return self._client.wait(self.job_id, timeout=timeout)

    def cancel(self) -> JobState:
        """Cancel the job; see :meth:`Client.cancel`."""
        return self._client.cancel(self.job_id)

    def __repr__(self) -> str:
        return f"JobHandle({self.job_id!r})"


class Client:
    """A producer's side of the service; safe to share between threads, not between processes.

    Parameters
    ----------
    settings: where Redis is, and so on; read from ``MASKSCORE_…`` variables where not given.
    overrides: single settings by name (``redis_url="redis://…"``), above the environment's.

    Every method raises :class:`~maskscore.errors.ServiceUnavailable` when Redis does not answer after a bounded retry.
    """

    def __init__(self, settings: ClientSettings | None = None, **overrides: Any) -> None:
        if settings is None:
            warn_of_unknown_variables()
            settings = load_settings(ClientSettings, **overrides)
        elif overrides:
            raise TypeError("give either a settings object or single settings, not both")
        self.settings = settings
        self._redis = connect(settings)
        self._ledger = Ledger(self._redis, namespace=settings.namespace, ttl_s=settings.result_ttl_s)
        self._batches = BatchLedger(self._redis, namespace=settings.namespace)
        self._registry = WorkerRegistry(self._redis, namespace=settings.namespace)
        self._sender = Sender(make_app(settings))
        # The client reads and writes only where its own settings, jobs and results point.
        self.objects = Objects(buckets=None, result_buckets=None, file_roots=[Path("/")])

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        with ExitStack() as closing:
            for part in (self._sender, self._redis, self.objects):
                closing.callback(part.close)

    def handle(self, job_id: str) -> JobHandle:
        """Return a handle for a job submitted before, perhaps by another process. Asks nothing yet."""
        return JobHandle(self, job_id)

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

    def submit_many(
        self,
        jobs: Iterable[Job],
        *,
        batch_id: str | None = None,
        content_id: bool = False,
        wait_for_room: bool = False,
        retry_failed: bool = False,
    ) -> Batch:
        """Submit jobs as a batch, a few hundred per round trip, and return it; raises as :meth:`submit` does.

        Under a ``batch_id`` of its own (a new one where it is not given) a producer that died on the way runs again and
        submits what is missing. A job that was submitted before, in another batch, joins this one with what became of
        it; with ``retry_failed`` it runs again if it ended without a result. ``wait_for_room`` waits while the queue is
        full, for as long as it takes, instead of raising :class:`~maskscore.errors.QueueFull`.
        """
        batch_id = batch_id or uuid.uuid4().hex
        rest = iter(jobs)
        while chunk := list(islice(rest, PAGE)):
            named = self._named(chunk, batch_id, content_id)
            while True:
                try:
                    self._submit(named, batch_id, retry_failed)
                    break
                except QueueFull:
                    if not wait_for_room:
                        raise
                    time.sleep(ROOM_S)
        return self.batch(batch_id)

    def rescore(
        self,
        jobs: Batch | Iterable[str],
        *,
        prompts: str | PromptSet | None = None,
        thresholds: Thresholds | Mapping[str, float] | None = None,
        method: Method | None = None,
        top_k: int | None = None,
        result_uri: str | None = None,
        batch_id: str | None = None,
        wait_for_room: bool = False,
    ) -> Batch:
        """Submit jobs again with other prompts, thresholds, method or top-k, as a new batch, and return it.

        ``jobs`` is a batch or the ids of jobs; what is not given stays as it was in each job. Workers with a cache of
        features (``MASKSCORE_FEATURE_CACHE``) need no forward for it: a result's ``cached`` counts the masks that came
        from there. The same question is the same job, so that a rescore that was interrupted can be repeated.

        Raises :class:`~maskscore.errors.JobNotFound` for a job whose record is gone,
        :class:`~maskscore.errors.InvalidDocumentError` where a result would overwrite an earlier one
        (``result_uri``), :class:`pydantic.ValidationError` for bad values, and as :meth:`submit_many` does.
        """
        changes = Changes(prompts, thresholds, method, top_k)
        ids = jobs.job_ids() if isinstance(jobs, Batch) else iter(jobs)
        sources: dict[str, None] = {}

        def again() -> Iterator[Job]:
            for job in self._documents(ids):
                if job.batch_id is not None:
                    sources[job.batch_id] = None
                yield rescored(job, changes, result_uri=result_uri)

        batch = self.submit_many(again(), batch_id=batch_id, wait_for_room=wait_for_room)
        carry_categories(map(self.batch, sources), batch)
        return batch

    def status(self, job_id: str) -> JobStatus:
        """Return where the job is. Raises :class:`~maskscore.errors.JobNotFound`."""
        return self.statuses([job_id])[0]

    def statuses(self, job_ids: Iterable[str]) -> list[JobStatus]:
        """Return where the jobs are, in one round trip. Raises :class:`~maskscore.errors.JobNotFound`."""
        ids = list(job_ids)
        found = self._look(ids)
        unknown = [job_id for job_id, status in zip(ids, found, strict=True) if status is None]
        if unknown:
            raise no_such_job(*unknown)
        return [status for status in found if status is not None]

    def records(self, job_ids: Iterable[str]) -> list[JobRecord | None]:
        """Return what the ledger holds of the jobs, in one round trip; ``None`` for unknown ones."""
        with redis_errors(self.settings):
            return self._ledger.records(job_ids)

    def get(self, job_id: str) -> JobResult:
        """Return an ended job's result; look at its ``state``: failed, cancelled and expired jobs have one too.

        Raises :class:`~maskscore.errors.ResultUnavailable` while the job has not ended or when its stored object is
        gone, and :class:`~maskscore.errors.JobNotFound`.
        """
        with redis_errors(self.settings):
            record = self._ledger.record(job_id)
        return load_result(record, self.objects)

    def job(self, job_id: str) -> Job:
        """Return the job as it was submitted (spilled masks by reference). Raises ``JobNotFound``."""
        with redis_errors(self.settings):
            document = self._ledger.document(job_id)
        return parse_job(unpack(document))

    def wait(self, job_id: str, timeout: float | None = None) -> JobResult:
        """Wait until the job has succeeded and return its result.

        Raises :class:`~maskscore.errors.JobFailed` (with the code) when it failed, was cancelled or expired, and
        :class:`~maskscore.errors.WaitTimeout` after ``timeout`` seconds; the job goes on then. The message says
        so where no worker is alive.
        """
        self._wait_for_end(job_id, timeout)
        return succeeded(self.get(job_id))

    def _wait_for_end(self, job_id: str, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.status(job_id).state.ended:
            return
        with redis_errors(self.settings), self._ledger.watched(job_id) as wait:
            while not (status := self.status(job_id)).state.ended:
                left = _LOOK_AGAIN_S if deadline is None else min(_LOOK_AGAIN_S, deadline - time.monotonic())
                if left <= 0:
                    raise self._late(not_ended(status, timeout))
                wait(left)

    def as_completed(self, handles: Batch | Iterable[JobHandle], timeout: float | None = None) -> Iterator[JobResult]:
        """Yield each job's result when it has ended, whatever way it ended; the first to end comes first.

        A batch is followed through its events, see :meth:`maskscore.Batch.as_completed`; other jobs are polled. Where a
        result is lost, or its place holds another job's, it has an ``error`` and no components. Raises
        :class:`~maskscore.errors.WaitTimeout` when ``timeout`` seconds (counted from the first ``next``) have passed
        and jobs are still going.
        """
        if isinstance(handles, Batch):
            yield from handles.as_completed(timeout)
            return
        polling = Polling((handle.job_id for handle in handles), timeout)
        while window := polling.window():
            ended = polling.ended(self.statuses(window))
            for job_id, record in zip(ended, self.records(ended), strict=True):
                yield load_result_or_error(record, self.objects) if record else self.get(job_id)
            if (pause_s := polling.pause()) is None:
                raise self._late(polling.late())
            time.sleep(pause_s)

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job and return its state now.

        A queued job is ``cancelled`` at once and never runs; a running one stops at its next step; an ended one
        stays as it is. Raises :class:`~maskscore.errors.JobNotFound`.
        """
        with redis_errors(self.settings):
            return self._ledger.cancel(job_id)

    def cancel_many(self, job_ids: Iterable[str]) -> list[JobState | None]:
        """Cancel jobs in one round trip; return the state each is in now, ``None`` for unknown ones."""
        with redis_errors(self.settings):
            return self._ledger.cancel_many(job_ids)

    def requeue(self, job_id: str) -> JobState:
        """Run a job again that failed, was cancelled or expired, with all its attempts; a dead letter leaves the list.

        Returns the state it is in now: ``queued``; a job that has not ended, or has succeeded, stays as it is. Raises
        :class:`~maskscore.errors.JobNotFound`.
        """
        with redis_errors(self.settings):
            before, lane = self._ledger.requeue(job_id)
            if not before.ended or before is JobState.SUCCEEDED:
                return before
            self._sender.send([(job_id, lane)])
        return JobState.QUEUED

    def requeue_many(self, job_ids: Iterable[str], *, codes: Iterable[str] = ()) -> list[str]:
        """Run those of the jobs again that ended without a result, as :meth:`requeue` does; return their ids.

        With ``codes`` (:class:`~maskscore.errors.FailureCode`), only those that ended with one of them. Jobs that have
        not ended, have succeeded or are unknown stay as they are.
        """
        codes = [str(code) for code in codes]
        rest, again = iter(job_ids), []
        while page := list(islice(rest, PAGE)):
            with redis_errors(self.settings):
                queued = self._ledger.requeue_many(page, codes=codes)
                self._sender.send(queued)
            again += [job_id for job_id, _ in queued]
        return again

    def dead_letters(self, *, limit: int = 1000) -> list[DeadLetter]:
        """Return the jobs that were given up although their input may be fine, the latest first.

        They are those that ended their worker time and again (``poisoned``) and those whose retries are used up. They
        are kept until :meth:`requeue` or :meth:`drop_dead_letter`.
        """
        with redis_errors(self.settings):
            return self._ledger.dead_letters(limit=limit)

    def dead_letter(self, job_id: str) -> DeadLetter:
        """Return one dead letter. Raises :class:`~maskscore.errors.JobNotFound` where it is none."""
        with redis_errors(self.settings):
            return self._ledger.dead_letter(job_id)

    def drop_dead_letter(self, job_id: str) -> bool:
        """Take a job off the list of dead letters; return whether it was there. Its failure is kept as any other."""
        with redis_errors(self.settings):
            return self._ledger.drop(job_id)

    def backlog(self) -> Backlog:
        """Count the jobs that have not ended, and the dead letters."""
        with redis_errors(self.settings):
            return self._ledger.backlog()

    def workers(self) -> list[SeenWorker]:
        """Return the workers of the namespace that are alive, by name, each as it last described itself."""
        with redis_errors(self.settings):
            return self._registry.workers()

    def no_worker(self) -> str | None:
        """Return a sentence that says that no worker is alive, and what to do; ``None`` while there is one."""
        with redis_errors(self.settings):
            return None if self._registry.count() else no_worker_sentence(self.settings.namespace)

    def _late(self, message: str) -> WaitTimeout:
        """Return the error for what had not ended in time, with the cause where there is no worker at all."""
        lonely = self.no_worker()
        return WaitTimeout(f"{message} {lonely}" if lonely else message)

    def _known_batches(self, names: list[str]) -> set[str]:
        with redis_errors(self.settings):
            return {name for name, known in zip(names, self._batches.known(names), strict=True) if known}

    def _look(self, job_ids: list[str]) -> list[JobStatus | None]:
        with redis_errors(self.settings):
            return self._ledger.statuses(job_ids)

    def _documents(self, job_ids: Iterator[str]) -> Iterator[Job]:
        while chunk := list(islice(job_ids, PAGE)):
            yield from self._jobs(chunk)

    def _jobs(self, job_ids: list[str]) -> list[Job]:
        with redis_errors(self.settings):
            documents = self._ledger.documents(job_ids)
        return [parse_job(unpack(document)) for document in documents]

    def _named(self, jobs: list[Job], batch_id: str, content_id: bool) -> list[Job]:
        named = [job if job.batch_id else job.model_copy(update={"batch_id": batch_id}) for job in jobs]
        return [with_content_id(job, self.objects) for job in named] if content_id else named

    def _submit(
        self, jobs: list[Job], batch_id: str | None, retry_failed: bool, retry_also: Collection[str] = ()
    ) -> None:
        tracing = open_tracing("maskscore-producer")
        if tracing is None:
            self._submit_traced(jobs, batch_id, None, retry_failed, retry_also)
            return
        attributes: dict[str, Any] = {"messaging.batch.message_count": len(jobs)}
        attributes |= {"maskscore.batch_id": batch_id} if batch_id else {"maskscore.job_id": jobs[0].job_id}
        with tracing.submit(attributes) as traceparent:
            self._submit_traced(jobs, batch_id, traceparent, retry_failed, retry_also)

    def _submit_traced(
        self,
        jobs: list[Job],
        batch_id: str | None,
        traceparent: str | None,
        retry_failed: bool,
        retry_also: Collection[str],
    ) -> None:
        submissions = [
            replace(
                self._submission(job, batch_id, traceparent),
                replaces="ended" if job.job_id in retry_also else "failed" if retry_failed else None,
            )
            for job in jobs
        ]
        with redis_errors(self.settings):
            outcomes = self._ledger.submit(submissions, queue_limit=self.settings.queue_limit)
            pairs = list(zip(jobs, outcomes, strict=True))
            self._sender.send((job.job_id, job.priority) for job, outcome in pairs if outcome is Submitted.WAITING)
        conflicts = [job.job_id for job, outcome in pairs if outcome is Submitted.CONFLICT]
        if conflicts:
            raise JobConflict(
                f"Another document was submitted before as job {', '.join(conflicts[:5])}. "
                "Give the new job an id of its own, or leave `job_id` out."
            )
        crowded = [job.job_id for job, outcome in pairs if outcome is Submitted.IN_TOO_MANY_BATCHES]
        if crowded:
            raise TooManyBatches(
                f"Job {', '.join(crowded[:5])} is in as many batches as a job may be, and did not join {batch_id}. "
                "Give the job a new id, or read its result under its id."
            )
        if Submitted.FULL in outcomes:
            self._raise_full(batch_id)
        if retry_failed:
            self.requeue_many(job.job_id for job, outcome in pairs if outcome is Submitted.KNOWN)

    def _raise_full(self, batch_id: str | None) -> None:
        backlog = self.backlog()
        depth = backlog.waiting + backlog.delayed
        again = f"these jobs again under the batch {batch_id}" if batch_id else "again"
        raise QueueFull(
            f"{depth:,} jobs are queued, and MASKSCORE_QUEUE_LIMIT is {self.settings.queue_limit:,}. Submit {again} "
            "when there are fewer; nothing is doubled.",
            depth=depth,
        )

    def _submission(self, job: Job, batch_id: str | None, traceparent: str | None) -> Submission:
        document = pack(job)
        if len(document) > self.settings.max_document_bytes:
            document = pack(self._spill(job, len(document)))
        return Submission(
            job.job_id, document, digest_of(job), batch_id, job.priority, job.expires_in, traceparent=traceparent
        )

    def _spill(self, job: Job, size: int) -> Job:
        if self.settings.spill_uri is None or isinstance(job.masks, MasksRef):
            raise PayloadTooLarge(
                f"The document of job {job.job_id} takes {size:,} bytes, more than MASKSCORE_MAX_DOCUMENT_BYTES = "
                f"{self.settings.max_document_bytes:,}. Put the masks into an object and give its URI as `masks`, or "
                "set MASKSCORE_SPILL_URI (s3://bucket/prefix/) so that the client does."
            )
        # By its digest: another job under the same id, which is refused later, must not overwrite this one's masks.
        uri = f"{self.settings.spill_uri}{job.job_id}-{digest_of(job)[:16]}.masks.json"
        inline = job.model_dump_json(include={"masks"})
        etag = self.objects.write(uri, inline.encode(), content_type="application/json")
        return job.model_copy(update={"masks": MasksRef(uri=uri, etag=etag)})


def succeeded(result: JobResult) -> JobResult:
    """Return the result of a job that has succeeded; raises :class:`~maskscore.errors.JobFailed` for any other."""
    if result.state is not JobState.SUCCEEDED:
        code, message = (result.error.code, result.error.message) if result.error else (str(result.state), "")
        raise JobFailed(result.job_id, code, message)
    return result


def not_ended(status: JobStatus, timeout: float | None) -> str:
    """Return what to say of a job that had not ended in time."""
    return (
        f"Job {status.job_id} had not ended after {timeout:g} s ({status.state}). It goes on; wait again, or cancel it."
    )


def no_such_job(*job_ids: str) -> JobNotFound:
    """Return the error for jobs that the ledger does not know."""
    return JobNotFound(
        f"No such job: {', '.join(job_ids[:5])}. It was never submitted to this Redis and namespace, or its "
        "record's time to live (MASKSCORE_RESULT_TTL_S) has passed."
    )
