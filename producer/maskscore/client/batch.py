"""A batch of jobs: the number in each state, and the results as jobs end, also for a client that was restarted."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maskscore.broker import redis_errors
from maskscore.client.batch_tables import table_of_jobs
from maskscore.client.job_client import JobClient, JobHandle
from maskscore.client.polling import PAGE, Deadline
from maskscore.errors import BatchNotFound, FailureCode
from maskscore.ledger import BatchCounts, BatchEvent, BatchLedger, JobRecord
from maskscore.results import Table
from maskscore.schema import Failure, JobResult
from maskscore.storage import Objects, load_result, load_result_or_error

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["COMMIT_EVERY_S", "Batch", "Ending", "no_such_batch"]

_Load = Callable[[JobRecord, Objects], JobResult]
_BLOCK_S = 2.0
COMMIT_EVERY_S = 1.0
"""Seconds between two notes of how far a reader has come."""


@dataclass(frozen=True, slots=True)
class Ending:
    """A job of a batch has ended: what the event says, and what the ledger holds of the job."""

    event: BatchEvent
    record: JobRecord | None


@dataclass(slots=True)
class ReadPosition:
    """How far a reader has come: the event whose result was taken last, and the one that is noted in Redis.

    ``reader`` is ``None`` for one whose position is not kept.
    """

    reader: str | None
    event_id: str
    committed: str
    committed_at: float = field(default_factory=time.monotonic)


class Batch:
    """The jobs that were submitted together, under one ``batch_id``.

    All of it stands in Redis, for the time to live after the last job has ended; this object holds the id and asks, so
    a batch of ten million jobs takes no more memory than one of ten. Iterating gives the handles in the order of
    submission, and ``len`` the number of jobs. Every method raises :class:`~maskscore.errors.BatchNotFound` for an
    unknown batch and :class:`~maskscore.errors.ServiceUnavailable` when Redis does not answer.
    """

    def __init__(self, client: JobClient, ledger: BatchLedger, batch_id: str) -> None:
        self._client = client
        self._ledger = ledger
        self.batch_id = batch_id

    def counts(self) -> BatchCounts:
        """Return how many jobs are in which state."""
        with redis_errors(self._client.settings):
            counts = self._ledger.counts(self.batch_id)
        if counts is None:
            raise no_such_batch(self.batch_id)
        return counts

    def __len__(self) -> int:
        return self.counts().total

    def __iter__(self) -> Iterator[JobHandle]:
        return map(self._client.handle, self.job_ids())

    def job_ids(self) -> Iterator[str]:
        """Yield the ids of the jobs, in the order of submission."""
        for page in self._id_pages():
            yield from page

    def no_worker(self) -> str | None:
        """Return a sentence that says that no worker serves the first of its jobs; see :meth:`Client.no_worker`."""
        return self._client.no_worker(of=self.job_ids())

    def wait(self, timeout: float | None = None) -> BatchCounts:
        """Wait until all jobs have ended and return the counts.

        Raises :class:`~maskscore.errors.WaitTimeout` after ``timeout`` seconds; the jobs go on then.
        """
        for _ in self._event_pages("0", timeout):
            pass
        return self.counts()

    def as_completed(self, timeout: float | None = None, *, reader: str | None = None) -> Generator[JobResult]:
        """Yield each job's result when it has ended, in any state, the first to end first.

        It begins with those that have ended already, so that a client that was started again misses none. With the
        name of a ``reader`` it goes on where that reader stopped: how far it has come is kept in Redis, and only the
        last results before a crash come again. Jobs that are added while it runs are waited for as well. Where a result
        is lost, or its place holds another job's, it has an ``error`` and no components.

        Raises :class:`~maskscore.errors.WaitTimeout` when ``timeout`` seconds (counted from the first ``next``) have
        passed and jobs are still going, and :class:`~maskscore.errors.ResultUnavailable` while the store of a result
        does not answer.
        """
        position = self._position(reader)
        try:
            for events in self._event_pages(position.event_id, timeout):
                yield from self._read(events, position)
        finally:
            self._commit(position)

    def endings(self, *, after: str = "0", limit: int = PAGE, wait_s: float = 0.0) -> list[Ending]:
        """Return up to ``limit`` endings after an event's id, the first to end first; ``0``: from the first one.

        Waits up to ``wait_s`` seconds for one where there is none. A batch without jobs has none, and is no error: this
        is for a reader of a batch that others still submit to. Pass an event's id on as ``after`` and none is missed.
        """
        events = self._events(after, limit, block_s=min(wait_s, self._longest_block_s))
        records = self._client.records([event.job_id for event in events])
        return [Ending(event, record) for event, record in zip(events, records, strict=True)]

    def result_of(self, ending: Ending) -> JobResult | None:
        """Return the result of an ending; ``None`` where the job was queued again since, and ends (ended) once more.

        Raises :class:`~maskscore.errors.ResultUnavailable` where its object cannot be read.
        """
        return self._result(ending.event, ending.record)

    def note(self, name: str) -> str | None:
        """Return a text that was kept with the batch by :meth:`set_note`, or ``None``."""
        with redis_errors(self._client.settings):
            return self._ledger.note(self.batch_id, name)

    def set_note(self, name: str, text: str) -> None:
        """Keep a text with the batch, for as long as the batch is kept: how far a reader has come, and so on."""
        with redis_errors(self._client.settings):
            self._ledger.set_note(self.batch_id, name, text)

    def cancel(self) -> BatchCounts:
        """Cancel every job that has not ended and return the counts: queued ones never run, running ones stop soon."""
        for _ in self._cancelled_pages():
            pass
        return self.counts()

    def requeue(self, *, codes: Iterable[str] = ()) -> int:
        """Run the jobs again that ended without a result, and return how many; see :meth:`maskscore.Client.requeue`.

        With ``codes`` (:class:`~maskscore.errors.FailureCode`), only those that ended with one of them. Their
        new ends are events of the batch.
        """
        return sum(self._requeued_pages(codes))

    def to_arrow(self, table: Table = "masks", *, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the masks, or the images, of the batch as a table of Arrow with the columns of parts, all in memory.

        Of shards it is what is committed so far; :func:`maskscore.results.open` reads more than memory holds. A job is
        a row of ``images`` in any state, at the ``position`` that it has in the batch; ``masks`` has those of jobs that
        have succeeded, without segmentations, which are where the jobs point to. ``columns`` are those to read.

        Raises :class:`~maskscore.errors.ResultUnavailable` where a result or part cannot be read, or no shard has a
        part, :class:`~maskscore.errors.InvalidDocumentError` where jobs of images stand among shards, and
        ModuleNotFoundError where pyarrow is not installed (``pip install "maskscore[export]"``).
        """
        self.counts()
        return table_of_jobs(self._client, self.job_ids(), table, columns)

    def to_pandas(self, table: Table = "masks", *, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return :meth:`to_arrow`'s table as a data frame; needs pandas, too."""
        return self.to_arrow(table, columns=columns).to_pandas()

    # What follows is shared with AsyncBatch, which makes each step of an iterator in a thread.

    def _id_pages(self) -> Iterator[list[str]]:
        start = 0
        while True:
            with redis_errors(self._client.settings):
                page = self._ledger.job_ids(self.batch_id, start=start, stop=start + PAGE)
            yield page
            start += len(page)
            if len(page) < PAGE:
                return

    def _cancelled_pages(self) -> Iterator[list[str]]:
        self.counts()
        for page in self._id_pages():
            self._client.cancel_many(page)
            yield page

    def _requeued_pages(self, codes: Iterable[str]) -> Iterator[int]:
        self.counts()
        codes = list(codes)
        for page in self._id_pages():
            yield len(self._client.requeue_many(page, codes=codes))

    def _position(self, reader: str | None) -> ReadPosition:
        if reader is None:
            return ReadPosition(None, "0", "0")
        with redis_errors(self._client.settings):
            event_id = self._ledger.position(self.batch_id, reader)
        return ReadPosition(reader, event_id, event_id)

    def _read(self, events: list[BatchEvent], position: ReadPosition) -> Iterator[JobResult]:
        """Yield the results of a page of events; an event is read when the next one is asked for."""
        records = self._client.records([event.job_id for event in events])
        for event, record in zip(events, records, strict=True):
            result = self._result(event, record, load_result_or_error)
            if result is not None:
                yield result
            position.event_id = event.event_id
            if time.monotonic() - position.committed_at > COMMIT_EVERY_S:
                self._commit(position)

    def _commit(self, position: ReadPosition) -> None:
        if position.reader is None or position.event_id == position.committed:
            return
        event_id = position.event_id
        with redis_errors(self._client.settings):
            self._ledger.set_position(self.batch_id, position.reader, event_id)
        position.committed, position.committed_at = event_id, time.monotonic()

    def _event_pages(self, position: str, timeout: float | None) -> Iterator[list[BatchEvent]]:
        block_s = min(_BLOCK_S, self._longest_block_s)
        return filter(None, self._followed(position, Deadline(timeout), block_s=block_s))

    def _followed(self, position: str, deadline: Deadline, *, block_s: float) -> Iterator[list[BatchEvent]]:
        """Yield the events after a position, page by page, until no job is left to wait for.

        A page is empty where no job has ended within ``block_s`` seconds.
        """
        while True:
            counts = self.counts()
            over = counts.ended == counts.total
            events = self._events(position, PAGE, block_s=0.0 if over else deadline.left_s(block_s))
            if events:
                position = events[-1].event_id
            elif over:
                return
            elif deadline.passed:
                raise self._client._wait_timeout(
                    f"{counts.total - counts.ended} of the {counts.total} jobs of batch {self.batch_id} had not ended "
                    f"after {deadline.timeout_s:g} s. They go on; wait again, or cancel them.",
                    self.job_ids(),
                )
            yield events

    @property
    def _longest_block_s(self) -> float:
        # A command that blocks for longer than Redis has for its answer would fail.
        return self._client.settings.redis_timeout_s / 2

    def _events(self, position: str, limit: int, *, block_s: float = 0.0) -> list[BatchEvent]:
        with redis_errors(self._client.settings):
            return self._ledger.events(self.batch_id, after=position, limit=limit, block_s=block_s)

    def _result(self, event: BatchEvent, record: JobRecord | None, load: _Load = load_result) -> JobResult | None:
        if record is None:
            message = "The job's record was kept for its time to live (MASKSCORE_RESULT_TTL_S) and is gone."
            return JobResult(
                job_id=event.job_id,
                batch_id=self.batch_id,
                state=event.state,
                error=Failure(code=FailureCode.RESULT_EXPIRED, message=message),
            )
        finished_at = record.status.finished_at
        ended_at = int(event.event_id.split("-")[0])
        # A dead letter that was queued again ends a second time: that event counts.
        if finished_at is None or ended_at < round(finished_at.timestamp() * 1000):
            return None
        return load(record, self._client.objects)


def no_such_batch(batch_id: str) -> BatchNotFound:
    """Return the error for a batch that the ledger does not know."""
    return BatchNotFound(
        f"There is no batch {batch_id}: no job was submitted under this id to this Redis and namespace, or its time to "
        "live (MASKSCORE_RESULT_TTL_S) after the last job's end has passed."
    )
