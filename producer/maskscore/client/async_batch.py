"""A batch of jobs for programs with an event loop: :class:`maskscore.Batch` with ``await``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from maskscore.client.async_job_client import AsyncJobClient, AsyncJobHandle
from maskscore.client.batch import Batch, Ending
from maskscore.client.endings_watcher import batch_topic
from maskscore.client.polling import PAGE, Deadline
from maskscore.ledger import BatchCounts, BatchEvent
from maskscore.results import Table
from maskscore.schema import JobResult

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["AsyncBatch"]


class AsyncBatch:
    """The jobs that were submitted together; see :class:`maskscore.Batch`, whose methods these are.

    ``async for handle in batch`` gives the handles in the order of submission. The number of jobs is
    ``(await batch.counts()).total``.
    """

    def __init__(self, client: AsyncJobClient, batch: Batch) -> None:
        self._client = client
        self._batch = batch
        self.batch_id = batch.batch_id

    async def counts(self) -> BatchCounts:
        """Return how many jobs are in which state."""
        return await self._client._call(self._batch.counts)

    async def __aiter__(self) -> AsyncIterator[AsyncJobHandle]:
        async for job_id in self.job_ids():
            yield self._client.handle(job_id)

    async def job_ids(self) -> AsyncIterator[str]:
        """Yield the ids of the jobs, in the order of submission."""
        async for page in self._client._steps(self._batch._id_pages()):
            for job_id in page:
                yield job_id

    async def no_worker(self) -> str | None:
        """Return a sentence that says that no worker serves the first of its jobs."""
        return await self._client._call(self._batch.no_worker)

    async def wait(self, timeout: float | None = None) -> BatchCounts:
        """Wait until all jobs have ended and return the counts; see :meth:`maskscore.Batch.wait`."""
        async with aclosing(self.events(timeout=timeout)) as pages:
            async for _ in pages:
                pass
        return await self.counts()

    async def as_completed(
        self, timeout: float | None = None, *, reader: str | None = None
    ) -> AsyncGenerator[JobResult]:
        """Yield each job's result when it has ended; see :meth:`maskscore.Batch.as_completed`."""
        position = await self._client._call(self._batch._position, reader)
        try:
            async with aclosing(self.events(position.event_id, timeout=timeout)) as pages:
                async for events in pages:
                    async for result in self._client._steps(self._batch._read(events, position)):
                        yield result
        finally:
            if reader is not None:
                await self._client._call(self._batch._commit, position)

    async def cancel(self) -> BatchCounts:
        """Cancel every job that has not ended and return the counts; see :meth:`maskscore.Batch.cancel`."""
        async for _ in self._client._steps(self._batch._cancelled_pages()):
            pass
        return await self.counts()

    async def requeue(self, *, codes: Iterable[str] = ()) -> int:
        """Run the jobs again that ended without a result, and return how many; see :meth:`maskscore.Batch.requeue`."""
        return sum([queued async for queued in self._client._steps(self._batch._requeued_pages(codes))])

    async def to_arrow(self, table: Table = "masks", *, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the masks, or the images, as a table of Arrow; see :meth:`maskscore.Batch.to_arrow`."""
        return await self._client._call(partial(self._batch.to_arrow, table, columns=columns))

    async def to_pandas(self, table: Table = "masks", *, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the masks, or the images, as a data frame; see :meth:`maskscore.Batch.to_pandas`."""
        return await self._client._call(partial(self._batch.to_pandas, table, columns=columns))

    async def events(self, position: str = "0", *, timeout: float | None = None) -> AsyncGenerator[list[BatchEvent]]:
        """Yield the ends of jobs after an event id, a few hundred at most at a time, until none is left to wait for.

        Raises :class:`~maskscore.errors.WaitTimeout` as :meth:`wait` does.
        """
        deadline = Deadline(timeout)
        async with self._client._watcher.subscribed(batch_topic(self.batch_id)) as next_end:
            async for events in self._client._steps(self._batch._followed(position, deadline, block_s=0.0)):
                if events:
                    yield events
                else:
                    await next_end(deadline.left_s())

    async def ended_after(self, position: str, limit: int) -> list[BatchEvent]:
        """Return up to ``limit`` ends of jobs after an event id (``0``: from the first one), without waiting."""
        return await self._client._call(self._batch._events, position, limit)

    async def endings(self, *, after: str = "0", limit: int = PAGE, wait_s: float = 0.0) -> list[Ending]:
        """Return up to ``limit`` endings after an event's id; see :meth:`maskscore.Batch.endings`."""
        load = partial(self._client._call, partial(self._batch.endings, after=after, limit=limit))
        endings = await load()
        if endings or wait_s <= 0:
            return endings
        deadline = Deadline(wait_s)
        async with self._client._watcher.subscribed(batch_topic(self.batch_id)) as next_end:
            while not (endings := await load()) and not deadline.passed:
                await next_end(deadline.left_s())
        return endings

    async def result_of(self, ending: Ending) -> JobResult | None:
        """Return the result of an ending; see :meth:`maskscore.Batch.result_of`."""
        return await self._client._call(self._batch.result_of, ending)

    async def note(self, name: str) -> str | None:
        """Return a text that was kept with the batch by :meth:`set_note`, or ``None``."""
        return await self._client._call(self._batch.note, name)

    async def set_note(self, name: str, text: str) -> None:
        """Keep a text with the batch, for as long as the batch is kept; see :meth:`maskscore.Batch.set_note`."""
        await self._client._call(self._batch.set_note, name, text)
