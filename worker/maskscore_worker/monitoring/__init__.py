"""The worker watched from inside: health probes, watchdog, its line in the registry, and checks for ``doctor``."""

from __future__ import annotations

from maskscore_worker.monitoring.health import Health
from maskscore_worker.monitoring.watchdog import StallDetector, Watchdog, WorkerObserver
from maskscore_worker.monitoring.worker_status import WorkerStatus

__all__ = ["Health", "StallDetector", "Watchdog", "WorkerObserver", "WorkerStatus"]
