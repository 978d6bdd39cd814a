"""The sweeper: handles lapsed leases, due retries and expiries in the ledger, and sends missing tickets."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import redis

from maskscore.ledger.records import SweepResult
from maskscore.ledger.transitions import Ledger
from maskscore.settings import WorkerSettings

__all__ = ["Sweeper"]

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_AFTER_FAULT_S = 5.0
_LOCK_S = 5.0
_PAGE = 500
_SHOWN = 20


class Sweeper:
    """A thread that sweeps the ledger every second; of all sweepers of a namespace, one does it.

    Parameters
    ----------
    ledger: of the namespace that is swept.
    name: of this process; the lock is held under it.
    on_sweep: called with what each round changed.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: WorkerSettings,
        *,
        name: str,
        on_sweep: Callable[[SweepResult], None] = lambda _: None,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._name = name
        self._on_sweep = on_sweep
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread. The lock lapses by itself."""
        self._closing.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def sweep(self) -> SweepResult:
        """Do one round. Raises :class:`redis.RedisError`."""
        swept = self._ledger.sweep(
            sweeper=self._name,
            lock_s=_LOCK_S,
            max_attempts=self._settings.max_attempts,
            limit=_PAGE,
        )
        self._on_sweep(swept)
        if swept.lapsed:
            log.warning(
                "%d jobs had lost their worker (%d of them are given up); the others are queued again",
                swept.lapsed,
                swept.poisoned,
            )
        if swept.missing:
            log.debug("%d tickets were missing", swept.missing)
        for stray in swept.strays[:_SHOWN]:
            log.warning("put aside, since the ledger did not write it: %s", stray)
        if len(swept.strays) > _SHOWN:
            log.warning("and %d more entries were put aside", len(swept.strays) - _SHOWN)
        return swept

    def _run(self) -> None:
        pause, last_error = _EVERY_S, ""
        while not self._closing.wait(pause):
            pause = _EVERY_S
            try:
                if self.sweep().more:
                    pause = 0.05
                last_error = ""
            except redis.RedisError as error:
                # The same error in every round would fill the log.
                log.log(
                    logging.DEBUG if str(error) == last_error else logging.WARNING,
                    "the ledger could not be swept, trying again: %s",
                    error,
                )
                last_error = str(error)
                # When Redis is back, the workers get the time to renew their leases first.
                pause = _AFTER_FAULT_S
            except Exception:
                log.exception("the ledger could not be swept, trying again")
                pause = _AFTER_FAULT_S
