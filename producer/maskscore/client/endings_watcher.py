"""Waiting for the ends of any number of jobs and batches in one event loop, with one thread for all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Final

from maskscore.ledger import End

__all__ = ["EndingsWatcher", "Subscribe", "batch_topic", "job_topic"]

Subscribe = Callable[[], AbstractContextManager[Callable[[float], End | bool]]]
"""Opens the subscription, as :func:`maskscore.ledger.listen_for_ends` does, with errors that a caller understands."""

# Ends are published at once; this is for one whose publication was lost.
_CHECK_AGAIN_S: Final = 5.0
# The thread stays for those who wait for one job after the other.
_LINGER_S: Final = 1.0
_LISTEN_S: Final = 0.2


def job_topic(job_id: str) -> str:
    """Return the topic of this job's end."""
    return f"job {job_id}"


def batch_topic(batch_id: str) -> str:
    """Return the topic of the ends of this batch's jobs."""
    return f"batch {batch_id}"


class EndingsWatcher:
    """Wakes waiters when a job has ended. All its methods belong to one event loop.

    Its thread and connection are there while somebody waits, and a second longer. When the connection fails
    after its retries, all waiters get the error, and the next waiter opens a new one.
    """

    def __init__(self, subscribe: Subscribe) -> None:
        self._subscribe = subscribe
        self._waiters: dict[str, set[_Waiter]] = {}
        self._listener: _Listener | None = None
        self._stopping: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def subscribed(self, topic: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """Give a function that waits for an end of the topic, so many seconds at most; from here on none is missed.

        It may return early, and does so after a few seconds in any case: check before and after. Raises what the
        subscription raises.
        """
        waiter = _Waiter()
        self._waiters.setdefault(topic, set()).add(waiter)
        try:
            await self._listening()
            yield waiter.wait
        finally:
            others = self._waiters[topic]
            others.discard(waiter)
            if not others:
                del self._waiters[topic]
            if not self._waiters and self._listener is not None:
                self._stopping = asyncio.get_running_loop().call_later(_LINGER_S, self._stop_listening)

    async def aclose(self) -> None:
        """End the thread."""
        if self._stopping is not None:
            self._stopping.cancel()
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.aclose()

    async def _listening(self) -> None:
        if self._stopping is not None:
            self._stopping.cancel()
            self._stopping = None
        if self._listener is None or self._listener.ended:
            self._listener = _Listener(self._subscribe, self._waiters)
        await asyncio.shield(self._listener.ready)

    def _stop_listening(self) -> None:
        if not self._waiters and self._listener is not None:
            self._listener.stop()
            self._listener = None


class _Waiter:
    """One waiter's event, or the error that ended the subscription."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._error: Exception | None = None

    def wake(self, error: Exception | None = None) -> None:
        self._error = error
        self._event.set()

    async def wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_CHECK_AGAIN_S, seconds)):
                await self._event.wait()
        self._event.clear()
        if self._error is not None:
            raise self._error


class _Listener:
    """The thread that listens and passes each end on to the event loop."""

    def __init__(self, subscribe: Subscribe, waiters: dict[str, set[_Waiter]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._subscribe = subscribe
        self._waiters = waiters
        self._stopped = threading.Event()
        self.ended = False
        self.ready: asyncio.Future[None] = self._loop.create_future()
        # Marks the error as retrieved, where nobody waits any more.
        self.ready.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="maskscore-watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end, at its next step."""
        self.ended = True
        self._stopped.set()

    async def aclose(self) -> None:
        """Wait until it has ended."""
        self.stop()
        await self._ended.wait()
        self._thread.join()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            with self._subscribe() as listen:
                self._in_loop(self._is_ready)
                while not self._stopped.is_set():
                    end = listen(_LISTEN_S)
                    if end is True:
                        self._in_loop(self._wake_all)
                    elif end and (topics := [topic for topic in _topics(end) if topic in self._waiters]):
                        self._in_loop(partial(self._wake, topics))
        except Exception as raised:
            error = raised
        self._in_loop(partial(self._end, error))

    def _in_loop(self, what: Callable[[], None]) -> None:
        # The loop may be closed.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what)
            return
        self._stopped.set()

    def _is_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _end(self, error: Exception | None) -> None:
        self.ended = True
        self._ended.set()
        if error is not None:
            if not self.ready.done():
                self.ready.set_exception(error)
            self._wake_all(error)
        self._is_ready()

    def _wake(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for waiter in self._waiters.get(topic, ()):
                waiter.wake()

    def _wake_all(self, error: Exception | None = None) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.wake(error)


def _topics(end: End) -> Iterator[str]:
    yield job_topic(end.job_id)
    yield from map(batch_topic, end.batch_ids)
