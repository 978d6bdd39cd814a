"""Pages, deadlines, and which of many jobs to ask for next: the part of waiting that is no I/O."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

from maskscore.ledger import JobStatus

__all__ = ["PAGE", "Deadline", "Polling", "async_pages", "pages"]

_T = TypeVar("_T")

PAGE: Final = 200
"""Jobs per round trip."""
_FIRST_S, _LAST_S = 0.005, 0.25


class Deadline:
    """The end of a wait of ``timeout_s`` seconds from now on; ``None``: the wait has no end."""

    def __init__(self, timeout_s: float | None) -> None:
        self.timeout_s = math.inf if timeout_s is None else timeout_s
        self._at = time.monotonic() + self.timeout_s

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._at

    def left_s(self, most_s: float = math.inf) -> float:
        """Return the seconds that are left, ``most_s`` at most; never less than 0."""
        return max(0.0, min(most_s, self._at - time.monotonic()))


class Polling:
    """Rounds over jobs that have not ended: ask for the :meth:`window`, tell what :meth:`ended`, :meth:`pause_s`.

    Parameters
    ----------
    job_ids: in the order of their submission; repeated ones count once.
    timeout: seconds from now until the time is over; ``None``: never.
    """

    def __init__(self, job_ids: Iterable[str], timeout: float | None) -> None:
        self._deadline = Deadline(timeout)
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

    @property
    def timed_out(self) -> bool:
        """Whether the time is over and no job of the last window had ended."""
        return self._none_ended and self._deadline.passed

    def pause_s(self) -> float:
        """Return the seconds to sleep before the next window."""
        if not self._none_ended:
            self._pause_s = _FIRST_S
            return 0.0
        if len(self._outstanding) > PAGE:
            self._outstanding.rotate(-PAGE)
        pause_s = self._deadline.left_s(self._pause_s)
        self._pause_s = min(_LAST_S, self._pause_s * 1.5)
        return pause_s

    def timeout_message(self) -> str:
        """Return what to say of the jobs that had not ended in time."""
        return (
            f"{len(self._outstanding)} of the jobs waited for had not ended after {self._deadline.timeout_s:g} s "
            f"(first: {self._first}). They go on; wait again, or cancel them."
        )


def pages(items: Iterable[_T]) -> Iterator[list[_T]]:
    """Yield the items as lists of :data:`PAGE`, the last one shorter; no more are taken than go into the next one."""
    rest = iter(items)
    while page := list(islice(rest, PAGE)):
        yield page


async def async_pages(items: Iterable[_T] | AsyncIterable[_T]) -> AsyncGenerator[list[_T]]:
    """Yield the items as :func:`pages` does, of which each may be waited for."""
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
