"""The watchdog: sees that there is work and nothing moves, and ends the process, so that the work goes elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from maskscore_worker.batcher import BatcherStats

__all__ = ["Observation", "Stillness", "Watchdog"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the watchdog looks at.

    ``taken`` counts the messages that came in; ``room`` says whether one more job could begin; ``oldest_start`` is when
    the first of those that still compute began (:func:`time.monotonic`). ``waiting`` counts the jobs in the queue
    (``None``: Redis did not answer), ``oldest_waiting_s`` is the age of the oldest message, and ``messages`` counts
    those that lie in the queue: where there is none, jobs wait for the ledger's sweeper and not for this worker.
    """

    batcher: BatcherStats
    taken: int
    room: bool
    oldest_start: float | None
    waiting: int | None
    oldest_waiting_s: float
    messages: int


class Stillness:
    """Says what has not moved for too long.

    Parameters
    ----------
    patience_s: how long something may stand still.
    job_timeout_s: how long a job may take before it stops itself.
    """

    def __init__(self, *, patience_s: float, job_timeout_s: float, now: float) -> None:
        self._patience_s = patience_s
        self._job_timeout_s = job_timeout_s
        self._batch_moved = self._job_taken = now
        self._last: Observation | None = None

    def judge(self, seen: Observation, now: float) -> str | None:
        """Return a sentence on what stands still, or ``None``. Call it often."""
        last, self._last = self._last, seen
        # Only what stood still at the last look, too, counts from then.
        if not (last and _busy(last) and _busy(seen)) or seen.batcher.last_progress != last.batcher.last_progress:
            self._batch_moved = now
        if not (last and self._tempted(last) and self._tempted(seen)) or seen.taken != last.taken:
            self._job_taken = now
        if now - self._batch_moved > self._patience_s:
            return f"the device has had crops to encode for {now - self._batch_moved:.0f} s and did not end a batch"
        if now - self._job_taken > self._patience_s:
            return f"{seen.waiting} jobs wait, there is room for them, and none came for {now - self._job_taken:.0f} s"
        if seen.oldest_start is not None and now - seen.oldest_start > self._job_timeout_s + self._patience_s:
            return f"a job has been running for {now - seen.oldest_start:.0f} s and does not stop"
        return None

    def _tempted(self, seen: Observation) -> bool:
        """Whether there are jobs that nobody takes, and a place for them here: an idle worker proves nothing."""
        left_lying = seen.waiting is not None and seen.waiting > 0 and seen.oldest_waiting_s > self._patience_s / 2
        return left_lying and seen.messages > 0 and seen.room


def _busy(seen: Observation) -> bool:
    return seen.batcher.waiting_crops > 0 or seen.batcher.encoding_crops > 0


class Watchdog:
    """A thread that observes and judges.

    Parameters
    ----------
    observe: returns an :class:`Observation`.
    stillness: judges them.
    bite: called with the sentence; it does not return.
    every_s: seconds between two looks.
    """

    def __init__(
        self,
        observe: Callable[[], Observation],
        stillness: Stillness,
        bite: Callable[[str], None],
        *,
        every_s: float,
    ) -> None:
        self._observe = observe
        self._stillness = stillness
        self._bite = bite
        self._every_s = every_s
        self.reason: str | None = None
        """What stands still, as of the last look."""
        self.looked_at = time.monotonic()
        """When the last look was, :func:`time.monotonic`."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self._every_s):
            self.reason = self._stillness.judge(self._observe(), time.monotonic())
            self.looked_at = time.monotonic()
            if self.reason is not None:
                self._bite(self.reason)
