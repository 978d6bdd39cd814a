"""The worker watched from inside: heartbeat, health probes, watchdog, and checks for ``doctor``."""

from __future__ import annotations

from maskscore_worker.monitoring.health import (
    Health,
)
from maskscore_worker.monitoring.heartbeat import (
    Presence,
)
from maskscore_worker.monitoring.watchdog import (
    Observation,
    Stillness,
    Watchdog,
)

__all__ = [
    "Health",
    "Observation",
    "Presence",
    "Stillness",
    "Watchdog",
]
