"""A thread that reads the ledger's backlog periodically, so that a slow Redis does not block the supervisor."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping

import redis

from maskscore.broker import redis_reason
from maskscore.ledger import Ledger
from maskscore.pool.scaling import BacklogSample

__all__ = ["BacklogObserver"]

log = logging.getLogger("maskscore.pool")


class BacklogObserver:
    """A thread that counts the jobs of each model that have not ended.

    Parameters
    ----------
    every_s: seconds between two samples.
    keep_s: seconds for which a sample is kept; the cool-down at least.
    """

    def __init__(self, ledger: Ledger, *, every_s: float, keep_s: float) -> None:
        self._ledger = ledger
        self._every_s = every_s
        self._keep_s = keep_s + 2 * every_s
        self._samples: deque[tuple[float, Mapping[str, int] | None]] = deque()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backlog", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._closing.set()
        self._thread.join()

    def samples(self, model: str) -> list[BacklogSample]:
        """Return the kept samples of a model's jobs, the latest last."""
        with self._lock:
            return [BacklogSample(at, None if jobs is None else jobs.get(model, 0)) for at, jobs in self._samples]

    def observe(self) -> None:
        """Take one sample."""
        jobs = self._count()
        now = time.monotonic()
        with self._lock:
            self._samples.append((now, jobs))
            while self._samples[0][0] < now - self._keep_s:
                self._samples.popleft()

    def _run(self) -> None:
        while True:
            self.observe()
            if self._closing.wait(self._every_s):
                return

    def _count(self) -> Mapping[str, int] | None:
        answered = not self._samples or self._samples[-1][1] is not None
        try:
            backlog = self._ledger.backlog()
        except redis.RedisError as error:
            if answered:
                log.warning("Redis does not answer: %s; the pool stays as it is until it does", redis_reason(error))
            return None
        if not answered:
            log.info("Redis answers again")
        return {name: jobs.unfinished for name, jobs in backlog.models.items()}
