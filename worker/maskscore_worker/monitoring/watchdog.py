"""The watchdog: ends the process when there is work and no progress, so that other workers get its jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

from maskscore.ledger import Ledger, ModelBacklog
from maskscore_worker.batching import Batcher, BatcherStats
from maskscore_worker.jobs import ConsumerState, ExclusiveGate, JobRunner, Leases

__all__ = ["Observation", "StallDetector", "Watchdog", "WorkerObserver"]


@dataclass(frozen=True, slots=True)
class Observation:
    """The state of the worker at one moment.

    ``taken`` counts the tickets that came in; ``room``: one more job could begin; ``oldest_start`` is when the oldest
    of the jobs that still compute began (:func:`time.monotonic`). ``waiting`` counts the queued jobs of its model
    (``None``: Redis did not answer), ``oldest_waiting_s`` is the age of the oldest one, and ``tickets`` counts those in
    the queue: where there are none, jobs wait for the ledger's sweeper and not for this worker.
    """

    batcher: BatcherStats
    taken: int
    room: bool
    oldest_start: float | None
    waiting: int | None
    oldest_waiting_s: float
    tickets: int


class StallDetector:
    """Detects that batches, tickets or a job have made no progress for too long.

    Parameters
    ----------
    patience_s: seconds without progress that are allowed.
    job_timeout_s: seconds after which a job stops itself.
    """

    def __init__(self, *, patience_s: float, job_timeout_s: float, now: float) -> None:
        self._patience_s = patience_s
        self._job_timeout_s = job_timeout_s
        self._batch_moved = self._job_taken = now
        self._last: Observation | None = None

    def detect(self, seen: Observation, now: float) -> str | None:
        """Return a sentence on what has stalled at ``now`` (:func:`time.monotonic`), or ``None``. Call it often."""
        last, self._last = self._last, seen
        # A stall begins with the first of two observations in a row without progress.
        if not (last and _busy(last) and _busy(seen)) or seen.batcher.last_progress != last.batcher.last_progress:
            self._batch_moved = now
        if not (last and self._should_take(last) and self._should_take(seen)) or seen.taken != last.taken:
            self._job_taken = now
        if now - self._batch_moved > self._patience_s:
            return f"the device has had crops to encode for {now - self._batch_moved:.0f} s and did not end a batch"
        if now - self._job_taken > self._patience_s:
            return f"{seen.waiting} jobs wait, there is room for them, and none came for {now - self._job_taken:.0f} s"
        if seen.oldest_start is not None and now - seen.oldest_start > self._job_timeout_s + self._patience_s:
            return f"a job has been running for {now - seen.oldest_start:.0f} s and does not stop"
        return None

    def _should_take(self, seen: Observation) -> bool:
        """Whether jobs have waited for long although this worker could take one of the queue's tickets."""
        waited_long = seen.waiting is not None and seen.waiting > 0 and seen.oldest_waiting_s > self._patience_s / 2
        return waited_long and seen.tickets > 0 and seen.room


def _busy(seen: Observation) -> bool:
    return seen.batcher.waiting_crops > 0 or seen.batcher.encoding_crops > 0


class Watchdog:
    """A thread that observes the worker and reports a stall.

    Parameters
    ----------
    on_stall: called with the sentence; it ends the process.
    every_s: seconds between two observations.
    """

    def __init__(
        self,
        observe: Callable[[], Observation],
        stall_detector: StallDetector,
        on_stall: Callable[[str], None],
        *,
        every_s: float,
    ) -> None:
        self._observe = observe
        self._stall_detector = stall_detector
        self._on_stall = on_stall
        self._every_s = every_s
        self.reason: str | None = None
        """The stall, as of the last observation."""
        self.checked_at = time.monotonic()
        """When the last observation was judged, :func:`time.monotonic`."""
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
            self.reason = self._stall_detector.detect(self._observe(), time.monotonic())
            self.checked_at = time.monotonic()
            if self.reason is not None:
                self._on_stall(self.reason)


@dataclass(frozen=True, slots=True)
class WorkerObserver:
    """Observes this worker; ``queued_tickets`` counts the tickets in the queue of its ``model``, a name."""

    concurrency: int
    batcher: Batcher
    ledger: Ledger
    model: str
    queued_tickets: Callable[[], int]
    leases: Leases
    gate: ExclusiveGate
    runner: JobRunner
    consumer: Callable[[], ConsumerState | None]

    def __call__(self) -> Observation:
        """Return the present observation; it may take as long as Redis does not answer."""
        held = self.leases.held()
        try:
            # Jobs of other models wait for other workers.
            backlog = self.ledger.backlog().models.get(self.model, ModelBacklog())
            queued = self.queued_tickets()
        except redis.RedisError:
            backlog, queued = None, 0
        consumer = self.consumer()
        takes_jobs = consumer is None or not consumer.cancelled
        return Observation(
            batcher=self.batcher.stats(),
            taken=self.runner.tickets,
            room=self.gate.is_open and len(held) < self.concurrency and takes_jobs,
            oldest_start=min((holder.started for holder in held if holder.computing), default=None),
            waiting=backlog.waiting if backlog else None,
            oldest_waiting_s=backlog.oldest_waiting_s if backlog else 0.0,
            tickets=queued,
        )
