"""The client for programs with an event loop (asyncio): :class:`maskscore.Client` with ``await``."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from contextlib import aclosing

from tenacity import AsyncRetrying

from maskscore.client.async_batch import AsyncBatch
from maskscore.client.async_job_client import AsyncJobClient, AsyncJobHandle
from maskscore.client.categories import copy_categories, copy_categories_of_parts
from maskscore.client.polling import Polling, async_pages
from maskscore.client.rescore import Rescoring, ScoringChanges
from maskscore.client.sync_client import full_queue_retries
from maskscore.ledger import BatchSummary
from maskscore.schema import Head, Job, JobResult, Method, PromptSet, Shard, SigmoidThresholds, Thresholds

__all__ = ["AsyncClient"]


class AsyncClient(AsyncJobClient):
    """A producer's side of the service for one event loop; :class:`maskscore.Client` says what each method does.

    Parameters
    ----------
    settings, overrides: as for :class:`maskscore.Client`.
    threads: of its own, in which the calls to Redis and S3 are made, so that none holds up the loop.

    Nothing waits in these threads: any number of ``await client.wait(job)`` share one more thread, which listens for
    the ends. A call that is cancelled while it runs in a thread is carried out all the same, since the thread cannot be
    stopped: a ``submit`` may have submitted, and can be repeated. ``async with`` or :meth:`aclose` ends all threads.
    """

    def batch(self, batch_id: str) -> AsyncBatch:
        """Return a batch submitted before, perhaps by another process. Asks nothing yet."""
        return AsyncBatch(self, self._sync.batch(batch_id))

    async def batches(self) -> list[BatchSummary]:
        """Return the batches that are kept, the latest first; see :meth:`maskscore.Client.batches`."""
        return await self._call(self._sync.batches)

    async def batch_tenant(self, batch_id: str) -> str | None:
        """Return whose a batch is; see :meth:`maskscore.Client.batch_tenant`."""
        return await self._call(self._sync.batch_tenant, batch_id)

    async def submit(self, job: Job, *, content_id: bool = False, retry_failed: bool = False) -> AsyncJobHandle:
        """Submit one job; see :meth:`maskscore.Client.submit`."""
        handle = await self._call(self._sync.submit, job, content_id=content_id, retry_failed=retry_failed)
        return self.handle(handle.job_id)

    async def submit_shard(self, shard: Shard, *, retry_failed: bool = False) -> AsyncJobHandle:
        """Submit one shard; see :meth:`maskscore.Client.submit_shard`."""
        handle = await self._call(self._sync.submit_shard, shard, retry_failed=retry_failed)
        return self.handle(handle.job_id)

    async def submit_many(
        self,
        jobs: Iterable[Job | Shard] | AsyncIterable[Job | Shard],
        *,
        batch_id: str | None = None,
        content_id: bool = False,
        wait_for_room: bool = False,
        retry_failed: bool = False,
    ) -> AsyncBatch:
        """Submit jobs as a batch, a few hundred per round trip; see :meth:`maskscore.Client.submit_many`.

        ``jobs`` may come asynchronously; no more of them are taken than go into the next round trip.
        """
        batch_id = batch_id or uuid.uuid4().hex
        submit = AsyncRetrying(**full_queue_retries(wait_for_room))
        async for page in async_pages(jobs):
            named = await self._call(self._sync._named, page, batch_id, content_id)
            await submit(self._call, self._sync._submit, named, batch_id, retry_failed)
        return self.batch(batch_id)

    async def rescore(
        self,
        jobs: AsyncBatch | Iterable[str] | AsyncIterable[str],
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
    ) -> AsyncBatch:
        """Submit jobs again with other prompts, thresholds, a head and so on; see :meth:`maskscore.Client.rescore`."""
        changes = ScoringChanges(prompts, thresholds, method, top_k, head, model, embeddings)
        rescoring = Rescoring(changes, result_uri)
        pages = async_pages(jobs.job_ids() if isinstance(jobs, AsyncBatch) else jobs)
        again = (
            job async for page in pages for job in rescoring.jobs(await self._call(self._sync._jobs_and_shards, page))
        )
        batch = await self.submit_many(again, batch_id=batch_id, wait_for_room=wait_for_room)
        sources = list(map(self._sync.batch, rescoring.source_batches))
        await self._call(copy_categories, sources, self._sync.batch(batch.batch_id))
        await self._call(copy_categories_of_parts, self._sync.objects, rescoring.source_outputs, result_uri or "")
        return batch

    async def as_completed(
        self, handles: AsyncBatch | Iterable[AsyncJobHandle], timeout: float | None = None
    ) -> AsyncGenerator[JobResult]:
        """Yield each job's result when it has ended, in any state; see :meth:`maskscore.Client.as_completed`."""
        if isinstance(handles, AsyncBatch):
            async with aclosing(handles.as_completed(timeout)) as results:
                async for result in results:
                    yield result
            return
        polling = Polling((handle.job_id for handle in handles), timeout)
        async for step in self._steps(self._sync._polled(polling)):
            if isinstance(step, JobResult):
                yield step
            else:
                await asyncio.sleep(step)
