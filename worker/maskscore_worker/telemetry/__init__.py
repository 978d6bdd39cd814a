"""What the worker measures: its metrics, the time in each stage, the use of the GPU."""

from __future__ import annotations

from maskscore_worker.telemetry.gpu_usage import (
    gpu_use,
)
from maskscore_worker.telemetry.metrics import (
    Meter,
)
from maskscore_worker.telemetry.stage_timer import (
    Stopwatch,
)

__all__ = [
    "Meter",
    "Stopwatch",
    "gpu_use",
]
