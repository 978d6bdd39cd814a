"""How a worker stops: by signals and a grace period, by the watchdog, or because its device is broken.

- The first signal: nothing new is begun, and jobs in flight have the grace period to finish. The process then returns.
- A second signal, or the end of the grace period: jobs in flight are released, and the process ends with 0.
- A broken device: jobs in flight are released with that reason, and the process ends with 70 (``EX_SOFTWARE``).
- A stall that the watchdog found: the process ends with 70 at once; its jobs come back when their leases have lapsed.

A released job is queued again and loses no attempt. Threads cannot be stopped, so a process that must end before its
jobs have does not wait for them: their outcomes no longer count.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from celery.worker import state as celery_state

from maskscore.ledger import Claim, Ledger
from maskscore_worker.jobs.leases import Leases

__all__ = ["Shutdown"]

log = logging.getLogger(__name__)


class Shutdown:
    """The state of a worker's shutdown, and all ways to the end of its process.

    Parameters
    ----------
    grace_s: seconds between the first request and the release of what still runs.
    claim_timeout_s: seconds that a broken device waits for claims that are under way.
    ready_file: removed before the process ends.
    exit_process: ends the process with a code.
    """

    def __init__(
        self,
        ledger: Ledger,
        leases: Leases,
        *,
        grace_s: float,
        claim_timeout_s: float,
        ready_file: Path | None = None,
        exit_process: Callable[[int], object] = os._exit,
    ) -> None:
        self._ledger = ledger
        self._leases = leases
        self._grace_s = grace_s
        self._claim_timeout_s = claim_timeout_s
        self._ready_file = ready_file
        self._exit_process = exit_process
        self._requested = threading.Event()
        self._expired = threading.Event()
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._claiming = 0
        self._thread = threading.Thread(target=self._run, name="shutdown", daemon=True)

    @property
    def draining(self) -> bool:
        """Whether nothing new is to be begun."""
        return self._requested.is_set()

    def start(self) -> None:
        """Start the thread that waits for the grace period to end."""
        self._thread.start()

    def close(self) -> None:
        """Everything has finished in time: cancel the end of the grace period."""
        self._closed.set()
        self._requested.set()
        self._expired.set()
        self._thread.join()

    def request(self) -> None:
        """Begin the shutdown or, the second time, end its grace period; may be called by a signal handler."""
        (self._expired if self._requested.is_set() else self._requested).set()

    def handle_signals(self) -> None:
        """Let signals request the shutdown, in the place of Celery's handlers: its second signal would lose jobs."""

        def handle(*_: object) -> None:
            self.request()
            celery_state.should_stop = 0

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            # `nohup` is to keep it running when the terminal is closed.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handle)

    def requested_within(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the request; return whether it was made."""
        return self._requested.wait(seconds)

    def pause(self, seconds: float) -> bool:
        """Sleep, until the grace period has ended at most; return whether it has not."""
        return not self._expired.wait(seconds)

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Mark a job that is between its ticket and its lease: a broken device waits for that before it releases."""
        with self._changed:
            self._claiming += 1
        try:
            yield
        finally:
            with self._changed:
                self._claiming -= 1
                self._changed.notify_all()

    def release(self, claim: Claim, *, device_fault: str = "") -> bool:
        """Give a job back at no cost of an attempt; return whether it waits for another worker now."""
        try:
            return self._ledger.release(claim, device_fault=device_fault)
        except Exception as error:
            # Its lease lapses; the others need not wait for that.
            log.warning("job %s could not be given back at once: %s", claim.job_id, error)
            return False

    def release_all(self, *, device_fault: str = "") -> int:
        """Release every job in flight; return how many wait for another worker now.

        A job that finishes at the same moment keeps its outcome.
        """
        held = self._leases.held()
        # None of them goes on, however long it takes to release the others.
        for holder in held:
            holder.stop_reason = "released"
        return sum([self.release(holder.claim, device_fault=device_fault) for holder in held])

    def end_for_broken_device(self, reason: str) -> None:
        """Release what runs and end the process: the device may work again for the next process."""
        log.critical("the worker ends itself: %s", reason)
        released = self.release_all(device_fault=reason)
        with self._changed:
            # None is claimed once the device is known to be broken.
            claimed = self._changed.wait_for(lambda: not self._claiming, self._claim_timeout_s)
        if claimed:
            released += self.release_all(device_fault=reason)
        log.critical("%d jobs were given back to the queue, at no cost of an attempt", released)
        self._end(os.EX_SOFTWARE)

    def end_for_stall(self, reason: str) -> None:
        """Log where every thread is, and end the process."""
        threads = "".join(
            f"Thread {number}:\n{''.join(traceback.format_stack(frame))}"
            for number, frame in sys._current_frames().items()
        )
        message = "the worker ends itself: %s; where its threads are is below"
        log.handle(log.makeRecord(log.name, logging.CRITICAL, __file__, 0, message, (reason,), None, sinfo=threads))
        self._end(os.EX_SOFTWARE)

    def _run(self) -> None:
        self._requested.wait()
        self._expired.wait(self._grace_s)
        self._expired.set()
        if self._closed.is_set():
            return
        try:
            released = self.release_all()
            log.warning("the grace period is over; %d jobs were given back to the queue", released)
        finally:
            self._end(os.EX_OK)

    def _end(self, exit_code: int) -> None:
        if self._ready_file:
            self._ready_file.unlink(missing_ok=True)
        logging.shutdown()
        self._exit_process(exit_code)
