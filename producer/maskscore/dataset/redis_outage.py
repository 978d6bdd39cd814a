"""The time for which a run keeps retrying while Redis does not answer, such as during a failover."""

from __future__ import annotations

import time

from maskscore.errors import ServiceUnavailable

__all__ = ["LONGEST_OUTAGE_S", "RedisOutage"]

LONGEST_OUTAGE_S = 120.0


class RedisOutage:
    """Measures the length of one outage."""

    def __init__(self, seconds: float = LONGEST_OUTAGE_S) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def answered(self) -> None:
        """Record an answer: the outage is over."""
        self._since = None

    def failed(self, error: ServiceUnavailable) -> None:
        """Record a failure; raise it where the outage has lasted too long."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= self._seconds:
            raise error
