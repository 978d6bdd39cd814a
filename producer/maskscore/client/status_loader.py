"""Looking after many jobs at once from an event loop: those that are asked for meanwhile go in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from maskscore.client.polling import PAGE
from maskscore.ledger import JobStatus

__all__ = ["Looks"]

_Answer = JobStatus | Exception | None


class Looks:
    """``await looks(job_id)`` is where the job is now; ``None`` for an unknown one.

    Parameters
    ----------
    statuses: asks for a page of jobs; what it raises, each who asked for one of them gets.
    """

    def __init__(self, statuses: Callable[[list[str]], Awaitable[Sequence[JobStatus | None]]]) -> None:
        self._statuses = statuses
        self._asked: dict[str, asyncio.Future[_Answer]] = {}
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, job_id: str) -> JobStatus | None:
        """Look; the answer is of a time after the call."""
        answer = self._asked.get(job_id)
        if answer is None:
            answer = self._asked[job_id] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._answer_all())
        found = await asyncio.shield(answer)
        if isinstance(found, Exception):
            raise found
        return found

    async def aclose(self) -> None:
        """Wait for the answers that are asked for."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _answer_all(self) -> None:
        try:
            while self._asked:
                page = list(islice(self._asked, PAGE))
                # From here on, who asks for one of them wants a newer answer.
                waiting = [self._asked.pop(job_id) for job_id in page]
                found: Sequence[_Answer]
                try:
                    found = await self._statuses(page)
                except Exception as error:
                    found = [error] * len(page)
                for answer, status in zip(waiting, found, strict=True):
                    answer.set_result(status)
        finally:
            self._task = None
