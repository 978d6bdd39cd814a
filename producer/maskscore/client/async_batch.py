"""A batch of jobs for programs with an event loop: :class:`maskscore.Batch` with ``await``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from functools import partial

from maskscore.client.async_job_client import AsyncJobClient, AsyncJobHandle
from maskscore.client.batch import COMMIT_EVERY_S, Batch, Ending
from maskscore.client.endings_watcher import batch_topic
from maskscore.client.polling import PAGE
from maskscore.ledger import BatchCounts, BatchEvent
from maskscore.schema import JobResult
from maskscore.storage import load_result_or_error

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
        start = 0
        while page := await self._client._call(self._batch._ids, start):
            for job_id in page:
                yield job_id
            start += len(page)
            if len(page) < PAGE:
                return

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
        position = "0" if reader is None else await self._client._call(self._batch._position, reader)
        done, committed, last = position, position, time.monotonic()
        try:
            async with aclosing(self.events(position, timeout=timeout)) as pages:
                async for events in pages:
                    records = await self._client.records([event.job_id for event in events])
                    for event, record in zip(events, records, strict=True):
                        result = await self._client._call(self._batch._result, event, record, load_result_or_error)
                        if result is not None:
                            yield result
                        done = event.event_id
                        if reader is not None and time.monotonic() - last > COMMIT_EVERY_S:
                            await self._client._call(self._batch._commit, reader, done)
                            committed, last = done, time.monotonic()
        finally:
            if reader is not None and done != committed:
                await self._client._call(self._batch._commit, reader, done)

    async def cancel(self) -> BatchCounts:
        """Cancel every job that has not ended and return the counts; see :meth:`maskscore.Batch.cancel`."""
        await self.counts()
        start = 0
        while page := await self._client._call(self._batch._ids, start):
            await self._client.cancel_many(page)
            start += len(page)
        return await self.counts()

    async def requeue(self, *, codes: Iterable[str] = ()) -> int:
        """Run the jobs again that ended without a result, and return how many; see :meth:`maskscore.Batch.requeue`."""
        await self.counts()
        codes = list(codes)
        start = queued = 0
        while page := await self._client._call(self._batch._ids, start):
            queued += len(await self._client.requeue_many(page, codes=codes))
            start += len(page)
        return queued

    async def events(self, position: str = "0", *, timeout: float | None = None) -> AsyncGenerator[list[BatchEvent]]:
        """Yield the ends of jobs after an event id, a few hundred at most at a time, until none is left to wait for.

        Raises :class:`~maskscore.errors.WaitTimeout` as :meth:`wait` does.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        async with self._client._watcher.subscribed(batch_topic(self.batch_id)) as news:
            while True:
                counts = await self.counts()
                events = await self.ended_after(position, PAGE)
                if events:
                    position = events[-1].event_id
                    yield events
                elif counts.ended == counts.total:
                    return
                elif deadline is not None and loop.time() >= deadline:
                    raise await self._client._call(self._batch._not_ended, counts, timeout)
                else:
                    await news(None if deadline is None else deadline - loop.time())

    async def ended_after(self, position: str, limit: int) -> list[BatchEvent]:
        """Return up to ``limit`` ends of jobs after an event id (``0``: from the first one), without waiting."""
        return await self._client._call(self._batch._events, position, limit)

    async def endings(self, *, after: str = "0", limit: int = PAGE, wait_s: float = 0.0) -> list[Ending]:
        """Return up to ``limit`` endings after an event's id; see :meth:`maskscore.Batch.endings`."""
        load = partial(self._client._call, partial(self._batch.endings, after=after, limit=limit))
        endings = await load()
        if endings or wait_s <= 0:
            return endings
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        async with self._client._watcher.subscribed(batch_topic(self.batch_id)) as news:
            while not (endings := await load()) and (left := deadline - loop.time()) > 0:
                await news(left)
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
