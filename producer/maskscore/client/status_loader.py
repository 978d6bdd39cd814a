"""A loader of statuses for an event loop: the jobs asked for during one round trip go together in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from maskscore.client.polling import PAGE
from maskscore.ledger import JobStatus

__all__ = ["StatusLoader"]

_Answer = JobStatus | Exception | None


class StatusLoader:
    """``await load(job_id)`` returns the job's status; ``None`` for an unknown job.

    Parameters
    ----------
    statuses: loads a page of jobs; an error of it is raised to each caller whose job is in the page.
    """

    def __init__(self, statuses: Callable[[list[str]], Awaitable[Sequence[JobStatus | None]]]) -> None:
        self._statuses = statuses
        self._requests: dict[str, asyncio.Future[_Answer]] = {}
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, job_id: str) -> JobStatus | None:
        """Load the status; the answer is never older than the call."""
        answer = self._requests.get(job_id)
        if answer is None:
            answer = self._requests[job_id] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._load_pages())
        found = await asyncio.shield(answer)
        if isinstance(found, Exception):
            raise found
        return found

    async def aclose(self) -> None:
        """Wait for the requests under way."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _load_pages(self) -> None:
        try:
            while self._requests:
                page = list(islice(self._requests, PAGE))
                # A request that comes from here on needs a newer answer than this page's.
                waiting = [self._requests.pop(job_id) for job_id in page]
                found: Sequence[_Answer]
                try:
                    found = await self._statuses(page)
                except Exception as error:
                    found = [error] * len(page)
                for answer, status in zip(waiting, found, strict=True):
                    answer.set_result(status)
        finally:
            self._task = None
