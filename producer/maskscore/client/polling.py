"""Which of many jobs to ask for next, and how long to pause: the part of polling that is no I/O; and pages of many."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from typing import Final, TypeVar

from maskscore.ledger import JobStatus

__all__ = ["PAGE", "Polling", "pages_of"]

_T = TypeVar("_T")

PAGE: Final = 200
"""Jobs per round trip."""
_FIRST_S, _LAST_S = 0.005, 0.25


class Polling:
    """Rounds over jobs that have not ended: ask for the :meth:`window`, tell what :meth:`ended`, :meth:`pause`.

    Parameters
    ----------
    job_ids: in the order of their submission; repeated ones count once.
    timeout: seconds from now until :meth:`pause` gives none; ``None``: never.
    """

    def __init__(self, job_ids: Iterable[str], timeout: float | None) -> None:
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._outstanding = deque(dict.fromkeys(job_ids))
        self._none_ended = False
        self._pause_s = _FIRST_S
        self._first = ""

    def window(self) -> list[str]:
        """Return the jobs to ask for now; none when all have ended."""
        return [self._outstanding.popleft() for _ in range(min(PAGE, len(self._outstanding)))]

    def ended(self, statuses: Sequence[JobStatus]) -> list[str]:
        """Return which jobs of the window have ended; the others will be asked for again."""
        # Jobs end about in the order of their submission: what is still going stays in front.
        going = [status for status in statuses if not status.state.ended]
        self._outstanding.extendleft(status.job_id for status in reversed(going))
        self._first = f"{going[0].job_id}, {going[0].state}" if going else ""
        self._none_ended = len(going) == len(statuses)
        return [status.job_id for status in statuses if status.state.ended]

    def pause(self) -> float | None:
        """Return the seconds to sleep before the next window.

        ``None`` when the time is over and no job of the window had ended.
        """
        if not self._none_ended:
            self._pause_s = _FIRST_S
            return 0.0
        if len(self._outstanding) > PAGE:
            self._outstanding.rotate(-PAGE)
        now = time.monotonic()
        if self._deadline is not None and now >= self._deadline:
            return None
        pause_s = self._pause_s if self._deadline is None else min(self._pause_s, self._deadline - now)
        self._pause_s = min(_LAST_S, self._pause_s * 1.5)
        return pause_s

    def late(self) -> str:
        """Return what to say of the jobs that had not ended in time."""
        return (
            f"{len(self._outstanding)} of the jobs waited for had not ended after {self._timeout:g} s "
            f"(first: {self._first}). They go on; wait again, or cancel them."
        )


async def pages_of(items: Iterable[_T] | AsyncIterable[_T]) -> AsyncGenerator[list[_T]]:
    """Yield the items as lists of :data:`PAGE`, the last one shorter; no more are taken than go into the next one."""
    page: list[_T] = []
    async for item in _each(items):
        page.append(item)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


async def _each(items: Iterable[_T] | AsyncIterable[_T]) -> AsyncIterator[_T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for item in items:
        yield item
