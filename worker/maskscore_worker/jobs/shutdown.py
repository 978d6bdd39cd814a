"""Shutting down: first nothing new, then a grace period for what runs, then in a hurry."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Drain"]


class Drain:
    """Asked once, a worker drains; asked again, or after the grace period, it hurries.

    Parameters
    ----------
    grace_s: seconds between the first request and the hurry.
    hurry: called then, in a thread of its own; it gives back what still runs and ends the process.
    """

    def __init__(self, grace_s: float, hurry: Callable[[], None]) -> None:
        self._grace_s = grace_s
        self._hurry = hurry
        self._draining = threading.Event()
        self._hurried = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)

    @property
    def draining(self) -> bool:
        """Whether nothing new is to be begun."""
        return self._draining.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def request(self) -> None:
        """Ask for the shutdown; may be called by a signal handler."""
        (self._hurried if self._draining.is_set() else self._draining).set()

    def close(self) -> None:
        """Everything has ended in time: no hurry any more."""
        self._closed.set()
        self._draining.set()
        self._hurried.set()
        self._thread.join()

    def begun_within(self, seconds: float) -> bool:
        """Wait so long for the shutdown to be asked for; return whether it was."""
        return self._draining.wait(seconds)

    def pause(self, seconds: float) -> bool:
        """Sleep, but not into the hurry; return whether there is time left."""
        return not self._hurried.wait(seconds)

    def _run(self) -> None:
        self._draining.wait()
        self._hurried.wait(self._grace_s)
        self._hurried.set()
        if not self._closed.is_set():
            self._hurry()
