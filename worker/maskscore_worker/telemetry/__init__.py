"""What a worker measures: its metrics, the time in each stage of a job, the use of its GPU."""

from __future__ import annotations

from maskscore_worker.telemetry.gpu_usage import read_gpu_usage
from maskscore_worker.telemetry.metrics import WorkerMetrics
from maskscore_worker.telemetry.stage_timer import StageTimer

__all__ = ["StageTimer", "WorkerMetrics", "read_gpu_usage"]
