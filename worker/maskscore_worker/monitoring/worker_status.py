"""The worker's own status, for the registry (with each heartbeat) and for the metrics."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata

from maskscore.ledger import WorkerReport
from maskscore.schema import DEFAULT_MODEL_NAME
from maskscore.settings import WorkerSettings
from maskscore_worker.batching import BatcherStats
from maskscore_worker.jobs import Leases, Shutdown
from maskscore_worker.pipeline import PARTS, Pipeline
from maskscore_worker.telemetry import WorkerMetrics, read_gpu_usage

__all__ = ["RecentRates", "WorkerStatus"]

_WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    masks: int
    crops: int
    places: float


class RecentRates:
    """Rates over the last 10 s, from counts that only grow. Call :meth:`add` every few seconds."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()
        self._lock = threading.Lock()

    def add(self, now: float, masks: int, stats: BatcherStats) -> None:
        """Add the counts of the moment ``now``, :func:`time.monotonic`."""
        places = stats.crops / stats.fill if stats.fill else 0.0
        with self._lock:
            self._samples.append(_Sample(now, masks, stats.crops, places))
            while len(self._samples) > 2 and self._samples[1].at <= now - _WINDOW_S:
                self._samples.popleft()

    @property
    def masks_per_s(self) -> float:
        """Masks of succeeded jobs per second."""
        first, last = self._ends()
        return (last.masks - first.masks) / (last.at - first.at) if last.at > first.at else 0.0

    @property
    def fill(self) -> float:
        """Share of the batches' places that was used, 0 to 1; 0 where there was no batch."""
        first, last = self._ends()
        places = last.places - first.places
        return min(1.0, (last.crops - first.crops) / places) if places > 0.5 else 0.0

    def _ends(self) -> tuple[_Sample, _Sample]:
        with self._lock:
            nothing = _Sample(0.0, 0, 0, 0.0)
            return (self._samples[0], self._samples[-1]) if self._samples else (nothing, nothing)


class WorkerStatus:
    """The worker's present status, and its live metrics."""

    def __init__(
        self, settings: WorkerSettings, pipeline: Pipeline, leases: Leases, shutdown: Shutdown, metrics: WorkerMetrics
    ) -> None:
        model, device = pipeline.model, pipeline.model.device
        self._pipeline = pipeline
        self._leases = leases
        self._shutdown = shutdown
        self._metrics = metrics
        self._recent = RecentRates()
        self._fixed = WorkerReport(
            name=pipeline.worker,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=metadata.version("maskscore"),
            device=str(device),
            precision=model.precision,
            concurrency=settings.concurrency,
            architecture=model.architecture,
            weights_digest=model.weights_digest,
            model=settings.model_name or DEFAULT_MODEL_NAME,
            started_at=datetime.now(UTC),
        )
        metrics.show_model(
            model=self._fixed.model,
            architecture=model.architecture,
            weights_digest=model.weights_digest,
            precision=model.precision,
            device=str(device),
            version=self._fixed.version,
        )
        metrics.show_stepped_down(PARTS, lambda: pipeline.fast_path.stepped_down)
        metrics.show_live(in_flight=self._in_flight, fill=lambda: self._recent.fill, gpu=lambda: read_gpu_usage(device))
        self._update_rates()

    def describe(self) -> WorkerReport:
        """Return the worker's line."""
        self._update_rates()
        use = read_gpu_usage(self._pipeline.model.device)
        return self._fixed.model_copy(
            update={
                "stepped_down": self._pipeline.fast_path.stepped_down,
                "state": "draining" if self._shutdown.draining else "running",
                "jobs_done": self._metrics.jobs_done,
                "masks_done": self._metrics.masks_done,
                "masks_per_s": self._recent.masks_per_s,
                "in_flight": self._in_flight(),
                "batch_fill": self._recent.fill,
                "gpu_memory_used": use.memory_used if use else None,
                "gpu_memory_total": use.memory_total if use else None,
                "gpu_utilization": use.utilization if use else None,
            }
        )

    def _update_rates(self) -> None:
        self._recent.add(time.monotonic(), self._metrics.masks_done, self._pipeline.batcher.stats())

    def _in_flight(self) -> int:
        return len(self._leases.held())
