"""Faults of the worker itself, such as credentials that are not accepted: it takes jobs more slowly, and reports why.

A worker that fails every job at once is the fastest of all, and would otherwise empty the queue of the healthy ones.
"""

from __future__ import annotations

import threading
import time

from maskscore_worker.jobs.shutdown import Shutdown

__all__ = ["WorkerFaults"]

_FIRST_S = 1.0


class WorkerFaults:
    """How long to wait before the next job: twice as long after each job that met a fault of this worker.

    Parameters
    ----------
    most_s: the longest pause, in seconds.
    """

    def __init__(self, shutdown: Shutdown, *, most_s: float) -> None:
        self._shutdown = shutdown
        self._most_s = most_s
        self._lock = threading.Lock()
        self._pause_s = 0.0
        self._until = 0.0
        self.reason: str | None = None
        """The fault that the last such job met; ``None`` once a job has succeeded."""

    def record(self, reason: str) -> None:
        """Note that a job met a fault of this worker."""
        with self._lock:
            # Jobs that ran beside each other met the same fault: it counts once.
            if time.monotonic() >= self._until:
                self._pause_s = min(self._most_s, 2 * self._pause_s or _FIRST_S)
                self._until = time.monotonic() + self._pause_s
            self.reason = reason

    def clear(self) -> None:
        """Note that a job has succeeded."""
        with self._lock:
            self._pause_s = self._until = 0.0
            self.reason = None

    def wait(self) -> None:
        """Wait until the next job may be tried, or the worker drains."""
        while (left := self._until - time.monotonic()) > 0 and not self._shutdown.requested_within(left):
            pass
