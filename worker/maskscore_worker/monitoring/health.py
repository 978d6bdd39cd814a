"""The health probes: whether the worker makes progress (liveness), and whether it takes jobs (readiness)."""

from __future__ import annotations

import time

from maskscore.ledger import HEARTBEAT_INTERVAL_S, WorkerHeartbeat
from maskscore.settings import WorkerSettings
from maskscore_worker.jobs import ConsumerState, Shutdown, WorkerFaults
from maskscore_worker.model import DeviceCheck
from maskscore_worker.monitoring.watchdog import Watchdog

__all__ = ["Health"]

_MISSED_HEARTBEATS = 5


class Health:
    """The probes of one worker. They never block: other threads keep up to date what they report.

    ``consuming`` is set once tickets are taken, after the model was loaded and a batch was encoded.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._watchdog: Watchdog | None = None
        self._shutdown: Shutdown | None = None
        self._heartbeat: WorkerHeartbeat | None = None
        self._faults: WorkerFaults | None = None
        self.consumer_state: ConsumerState | None = None
        """The state of Celery's consumer; set before ``consuming``."""
        self._device: DeviceCheck | None = None
        self.consuming = False

    def observe(
        self,
        watchdog: Watchdog,
        shutdown: Shutdown,
        heartbeat: WorkerHeartbeat,
        faults: WorkerFaults | None = None,
        device: DeviceCheck | None = None,
    ) -> None:
        """Include the state of these in the probes from now on."""
        self._watchdog, self._shutdown, self._heartbeat = watchdog, shutdown, heartbeat
        self._faults, self._device = faults, device

    def live(self) -> str | None:
        """Return why the process should be restarted; ``None``: it makes progress, or still loads its model."""
        if self._device is not None and self._device.reason is not None:
            return self._device.reason
        watchdog = self._watchdog
        if watchdog is None:
            return None
        if watchdog.reason is not None:
            return watchdog.reason
        # An observation may take as long as Redis is silent.
        patience_s = self._settings.watchdog_s + 5 * self._settings.redis_timeout_s
        silent_s = time.monotonic() - watchdog.checked_at
        return f"the watchdog has not looked for {silent_s:.0f} s" if silent_s > patience_s else None

    def ready(self) -> str | None:
        """Return why the worker takes no jobs at present; ``None``: it takes them."""
        if self._shutdown is not None and self._shutdown.draining:
            return "it is draining: what runs is finished, nothing new is begun"
        if not self.consuming:
            return "the model is being loaded"
        stalled = self.live()
        if stalled is not None:
            return stalled
        if self._heartbeat is not None and self._heartbeat.refused is not None:
            return f"Redis's user lacks a right: {self._heartbeat.refused}"
        silence_s = self._heartbeat.silence_s if self._heartbeat else None
        if silence_s is None:
            return "Redis has not answered yet"
        if silence_s > _MISSED_HEARTBEATS * HEARTBEAT_INTERVAL_S:
            return f"Redis has not answered for {silence_s:.0f} s"
        # A consumer that lost Redis looks as one that was cancelled.
        if self.consumer_state is not None and (idle := self.consumer_state.reason) is not None:
            return idle
        return self._faults.reason if self._faults else None
