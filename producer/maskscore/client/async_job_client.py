"""Jobs by their ids for programs with an event loop: :class:`maskscore.client.job_client.JobClient` with ``await``."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, ParamSpec, Self, TypeVar

from maskscore.broker import redis_errors
from maskscore.client.endings_watcher import EndingsWatcher, job_topic
from maskscore.client.job_client import no_such_job, not_ended, succeeded
from maskscore.client.polling import Deadline
from maskscore.client.status_loader import StatusLoader
from maskscore.client.sync_client import Client
from maskscore.ledger import (
    Backlog,
    DeadLetter,
    End,
    JobRecord,
    JobStatus,
    LiveWorker,
    TenantLimits,
    TenantState,
    TenantStates,
    listen_for_ends,
)
from maskscore.schema import Job, JobResult, JobState, Shard
from maskscore.settings import ClientSettings

__all__ = ["AsyncJobClient", "AsyncJobHandle"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class AsyncJobHandle:
    """One submitted job. Cheap: it holds the id and asks through its client."""

    def __init__(self, client: AsyncJobClient, job_id: str) -> None:
        self._client = client
        self.job_id = job_id

    async def status(self) -> JobStatus:
        """Return where the job is; see :meth:`AsyncClient.status`."""
        return await self._client.status(self.job_id)

    async def wait(self, timeout: float | None = None) -> JobResult:
        """Wait for the result; see :meth:`AsyncClient.wait`."""
        return await self._client.wait(self.job_id, timeout=timeout)

    async def cancel(self) -> JobState:
        """Cancel the job; see :meth:`AsyncClient.cancel`."""
        return await self._client.cancel(self.job_id)

    def __repr__(self) -> str:
        return f"AsyncJobHandle({self.job_id!r})"


class AsyncJobClient:
    """What :class:`maskscore.AsyncClient` does with jobs that were submitted before.

    Parameters: see there.
    """

    def __init__(self, settings: ClientSettings | None = None, *, threads: int = 8, **overrides: Any) -> None:
        self._sync = Client(settings, **overrides)
        self.settings = self._sync.settings
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="maskscore-async")
        self._under_way: set[Future[Any]] = set()
        self._load_status = StatusLoader(lambda job_ids: self._call(self._sync._find_statuses, job_ids))
        self._watcher = EndingsWatcher(self._subscribe)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections and end the threads, when the calls that are under way have come to an end."""
        await self._watcher.aclose()
        await self._load_status.aclose()
        # What was cancelled may still be under way; when it is over, the threads end at once.
        while self._under_way:
            await asyncio.wait([asyncio.wrap_future(call) for call in set(self._under_way)])
        self._pool.shutdown()
        self._sync.close()

    def handle(self, job_id: str) -> AsyncJobHandle:
        """Return a handle for a job submitted before, perhaps by another process. Asks nothing yet."""
        return AsyncJobHandle(self, job_id)

    async def status(self, job_id: str) -> JobStatus:
        """Return where the job is. Raises :class:`~maskscore.errors.JobNotFound`."""
        status = await self._load_status(job_id)
        if status is None:
            raise no_such_job(job_id)
        return status

    async def statuses(self, job_ids: Iterable[str]) -> list[JobStatus]:
        """Return where the jobs are, in one round trip. Raises :class:`~maskscore.errors.JobNotFound`."""
        return await self._call(self._sync.statuses, list(job_ids))

    async def records(self, job_ids: Iterable[str]) -> list[JobRecord | None]:
        """Return what the ledger holds of the jobs, in one round trip; ``None`` for unknown ones."""
        return await self._call(self._sync.records, list(job_ids))

    async def get(self, job_id: str) -> JobResult:
        """Return an ended job's result; see :meth:`maskscore.Client.get`."""
        return await self._call(self._sync.get, job_id)

    async def job(self, job_id: str) -> Job:
        """Return the job as it was submitted (spilled masks by reference). Raises ``JobNotFound``."""
        return await self._call(self._sync.job, job_id)

    async def shard(self, job_id: str) -> Shard:
        """Return the shard as it was submitted; see :meth:`maskscore.Client.shard`."""
        return await self._call(self._sync.shard, job_id)

    async def wait(self, job_id: str, timeout: float | None = None) -> JobResult:
        """Wait until the job has succeeded and return its result; see :meth:`maskscore.Client.wait`."""
        await self.wait_for_end(job_id, timeout)
        return succeeded(await self.get(job_id))

    async def wait_for_end(self, job_id: str, timeout: float | None = None) -> JobStatus:
        """Wait until the job has ended, in any state, and return its status.

        Raises :class:`~maskscore.errors.JobNotFound`, and :class:`~maskscore.errors.WaitTimeout` after ``timeout``
        seconds; the job goes on then.
        """
        deadline = Deadline(timeout)
        status = await self.status(job_id)
        if status.state.ended:
            return status
        async with self._watcher.subscribed(job_topic(job_id)) as next_end:
            while not (status := await self.status(job_id)).state.ended:
                if deadline.passed:
                    raise await self._call(self._sync._wait_timeout, not_ended(status, deadline), [job_id])
                await next_end(deadline.left_s())
        return status

    async def cancel(self, job_id: str) -> JobState:
        """Cancel a job and return its state now; see :meth:`maskscore.Client.cancel`."""
        return await self._call(self._sync.cancel, job_id)

    async def cancel_many(self, job_ids: Iterable[str]) -> list[JobState | None]:
        """Cancel jobs in one round trip; return the state each is in now, ``None`` for unknown ones."""
        return await self._call(self._sync.cancel_many, list(job_ids))

    async def requeue(self, job_id: str) -> JobState:
        """Run a job again that failed, was cancelled or expired; see :meth:`maskscore.Client.requeue`."""
        return await self._call(self._sync.requeue, job_id)

    async def requeue_many(self, job_ids: Iterable[str], *, codes: Iterable[str] = ()) -> list[str]:
        """Run those of the jobs again that ended without a result; see :meth:`maskscore.Client.requeue_many`."""
        return await self._call(self._sync.requeue_many, list(job_ids), codes=list(codes))

    async def dead_letters(self, *, limit: int = 1000) -> list[DeadLetter]:
        """Return the dead letters, the latest first; see :meth:`maskscore.Client.dead_letters`."""
        return await self._call(self._sync.dead_letters, limit=limit)

    async def dead_letter(self, job_id: str) -> DeadLetter:
        """Return one dead letter. Raises :class:`~maskscore.errors.JobNotFound` where it is none."""
        return await self._call(self._sync.dead_letter, job_id)

    async def drop_dead_letter(self, job_id: str) -> bool:
        """Take a job off the list of dead letters; return whether it was there. Its failure is kept as any other."""
        return await self._call(self._sync.drop_dead_letter, job_id)

    async def job_tenant(self, job_id: str) -> str | None:
        """Return whose a job is; see :meth:`maskscore.Client.job_tenant`."""
        return await self._call(self._sync.job_tenant, job_id)

    async def tenants(self) -> TenantStates:
        """Return the tenants with jobs or limits; see :meth:`maskscore.Client.tenants`."""
        return await self._call(self._sync.tenants)

    async def tenant(self, name: str) -> TenantState:
        """Return a tenant's jobs and limits; see :meth:`maskscore.Client.tenant`."""
        return await self._call(self._sync.tenant, name)

    async def own_limits(self, tenant: str) -> TenantLimits:
        """Return what was set for a tenant; see :meth:`maskscore.Client.own_limits`."""
        return await self._call(self._sync.own_limits, tenant)

    async def set_tenant(self, tenant: str, limits: TenantLimits | None) -> None:
        """Set a tenant's weight and limits; see :meth:`maskscore.Client.set_tenant`."""
        await self._call(self._sync.set_tenant, tenant, limits)

    async def backlog(self) -> Backlog:
        """Count the jobs that have not ended, and the dead letters."""
        return await self._call(self._sync.backlog)

    async def workers(self) -> list[LiveWorker]:
        """Return the workers of the namespace that are alive; see :meth:`maskscore.Client.workers`."""
        return await self._call(self._sync.workers)

    async def no_worker(self, *models: str | None, of: Iterable[str] = ()) -> str | None:
        """Return a sentence that says that no worker is alive; see :meth:`maskscore.Client.no_worker`."""
        return await self._call(self._sync.no_worker, *models, of=of)

    async def _call(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        # The caller's context goes along: it has the span that a submit belongs to.
        run = partial(contextvars.copy_context().run, function, *args, **kwargs)
        call = self._pool.submit(run)
        self._under_way.add(call)
        call.add_done_callback(self._under_way.discard)
        return await asyncio.wrap_future(call)

    def _steps(self, items: Iterator[_T]) -> AsyncIterator[_T]:
        """Return the items of an iterator, none of them ``None``; each of its steps is I/O, and made in a thread."""
        return _Steps(lambda: self._call(next, items, None))

    @contextmanager
    def _subscribe(self) -> Iterator[Callable[[float], End | bool]]:
        with (
            redis_errors(self.settings),
            listen_for_ends(self._sync._redis, namespace=self.settings.namespace) as listen,
        ):
            yield listen


class _Steps(AsyncIterator[_T]):
    """What ``load`` returns, until it is ``None``. Unlike an asynchronous generator, it needs no closing."""

    def __init__(self, load: Callable[[], Awaitable[_T | None]]) -> None:
        self._load = load

    async def __anext__(self) -> _T:
        item = await self._load()
        if item is None:
            raise StopAsyncIteration
        return item
