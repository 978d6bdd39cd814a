"""Waiting for the ends of any number of jobs and batches, from one event loop, with one thread for all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Final

from maskscore.ledger import End

__all__ = ["Hearing", "Watcher", "batch_topic", "job_topic"]

Hearing = Callable[[], AbstractContextManager[Callable[[float], End | bool]]]
"""Opens the subscription, as :func:`maskscore.ledger.hear_ends` does, with errors that a caller understands."""

# Ends are told at once; this is for one that was told to nobody.
_LOOK_AGAIN_S: Final = 5.0
# The thread stays for those who wait for one job after the other.
_LINGER_S: Final = 1.0
_LISTEN_S: Final = 0.2


def job_topic(job_id: str) -> str:
    """Return what a waiter for this job listens for."""
    return f"job {job_id}"


def batch_topic(batch_id: str) -> str:
    """Return what a waiter for the jobs of this batch listens for."""
    return f"batch {batch_id}"


class Watcher:
    """Tells waiters when to look again. All its methods belong to one event loop.

    Its thread and connection are there while somebody waits, and a second longer. When the connection fails for good,
    all who wait get the error, and the next one to wait begins anew.
    """

    def __init__(self, hearing: Hearing) -> None:
        self._hearing = hearing
        self._bells: dict[str, set[_Bell]] = {}
        self._listener: _Listener | None = None
        self._leaving: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def told(self, topic: str) -> AsyncIterator[Callable[[float | None], Awaitable[None]]]:
        """Give a function that waits for news of the topic, so many seconds at most; from here on none is missed.

        It may return early, and does so after a few seconds in any case: look before and after. Raises what the
        subscription raises.
        """
        bell = _Bell()
        self._bells.setdefault(topic, set()).add(bell)
        try:
            await self._listening()
            yield bell.wait
        finally:
            others = self._bells[topic]
            others.discard(bell)
            if not others:
                del self._bells[topic]
            if not self._bells and self._listener is not None:
                self._leaving = asyncio.get_running_loop().call_later(_LINGER_S, self._leave)

    async def aclose(self) -> None:
        """End the thread."""
        if self._leaving is not None:
            self._leaving.cancel()
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.aclose()

    async def _listening(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if self._listener is None or self._listener.over:
            self._listener = _Listener(self._hearing, self._bells)
        await asyncio.shield(self._listener.ready)

    def _leave(self) -> None:
        if not self._bells and self._listener is not None:
            self._listener.stop()
            self._listener = None


class _Bell:
    """One waiter's; it remembers that it rang until the waiter has heard it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._error: Exception | None = None

    def ring(self, error: Exception | None = None) -> None:
        self._error = error
        self._event.set()

    async def wait(self, seconds: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AGAIN_S if seconds is None else min(_LOOK_AGAIN_S, seconds)):
                await self._event.wait()
        self._event.clear()
        if self._error is not None:
            raise self._error


class _Listener:
    """The thread; what it hears, it tells the event loop."""

    def __init__(self, hearing: Hearing, bells: dict[str, set[_Bell]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._hearing = hearing
        self._bells = bells
        self._stopped = threading.Event()
        self.over = False
        self.ready: asyncio.Future[None] = self._loop.create_future()
        # An error of its own is nobody's where nobody waits any more.
        self.ready.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="maskscore-watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end, at its next step."""
        self.over = True
        self._stopped.set()

    async def aclose(self) -> None:
        """Wait until it has ended."""
        self.stop()
        await self._ended.wait()
        self._thread.join()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            with self._hearing() as listen:
                self._tell(self._is_ready)
                while not self._stopped.is_set():
                    heard = listen(_LISTEN_S)
                    if heard is True:
                        self._tell(self._ring_all)
                    elif heard and (topics := [topic for topic in _topics(heard) if topic in self._bells]):
                        self._tell(partial(self._ring, topics))
        except Exception as raised:
            error = raised
        self._tell(partial(self._end, error))

    def _tell(self, what: Callable[[], None]) -> None:
        # A loop that was closed has nobody to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what)
            return
        self._stopped.set()

    def _is_ready(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _end(self, error: Exception | None) -> None:
        self.over = True
        self._ended.set()
        if error is not None:
            if not self.ready.done():
                self.ready.set_exception(error)
            self._ring_all(error)
        self._is_ready()

    def _ring(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for bell in self._bells.get(topic, ()):
                bell.ring()

    def _ring_all(self, error: Exception | None = None) -> None:
        for bells in self._bells.values():
            for bell in bells:
                bell.ring(error)


def _topics(end: End) -> Iterator[str]:
    yield job_topic(end.job_id)
    yield from map(batch_topic, end.batch_ids)
