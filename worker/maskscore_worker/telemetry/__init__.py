"""A worker's measurements: metrics, seconds per stage of a job, use of the GPU."""

from __future__ import annotations

from maskscore_worker.telemetry.gpu_usage import read_gpu_usage
from maskscore_worker.telemetry.metrics import WorkerMetrics
from maskscore_worker.telemetry.stage_timer import StageTimer

__all__ = ["StageTimer", "WorkerMetrics", "read_gpu_usage"]
