"""How long a run bears a Redis that does not answer: a restart or a failover is no reason to give up a day's work."""

from __future__ import annotations

import time

from maskscore.errors import ServiceUnavailable

__all__ = ["PATIENCE_S", "Patience"]

PATIENCE_S = 120.0


class Patience:
    """Counts the seconds of one outage."""

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def answered(self) -> None:
        """Note that it is over."""
        self._since = None

    def bear(self, error: ServiceUnavailable) -> None:
        """Note a failure. Raises it where it has lasted too long."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since >= self._seconds:
            raise error
