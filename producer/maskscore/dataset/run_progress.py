"""The progress of a run: counts, rate, and time left."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from maskscore.dataset.submission import Submitted
from maskscore.ledger import BatchCounts

__all__ = ["JobRate", "RunProgress"]

_RATE_OVER_S = 60.0


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Where a run is: of ``total`` images, how many are submitted and what became of them.

    ``per_s`` is the rate of the last minute, jobs that ended per second; ``left_s`` the seconds left at this rate,
    ``None`` while there is none. ``most_failed`` is the most frequent code of those without a result.
    ``trouble`` is said of a Redis that does not answer; the run waits for it then, two minutes at most. ``no_worker``
    says that no worker is alive, while nothing runs.
    """

    total: int
    submitted: Submitted
    counts: BatchCounts
    masks: int
    per_s: float
    left_s: float | None
    most_failed: str | None = None
    trouble: str | None = None
    no_worker: str | None = None


@dataclass
class JobRate:
    """The rate of ended jobs per second over the last minute; ``first`` had ended at the start."""

    first: int
    _looks: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._looks.append((time.monotonic(), self.first))

    def per_s(self, ended: int) -> float:
        """Note how many have ended by now, and return the rate."""
        now = time.monotonic()
        self._looks.append((now, ended))
        while len(self._looks) > 2 and now - self._looks[0][0] > _RATE_OVER_S:
            self._looks.popleft()
        since, count = self._looks[0]
        return (ended - count) / (now - since) if now > since else 0.0
