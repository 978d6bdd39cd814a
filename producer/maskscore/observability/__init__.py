"""What is measured and logged: the declarations of metrics, traces and logs."""

from __future__ import annotations

from maskscore.observability.logs import (
    job_id_logged,
    log_json_early,
    log_to_stderr,
)
from maskscore.observability.metrics import (
    DEAD_LETTERS,
    GATEWAY_IN_PROGRESS,
    GATEWAY_REQUESTS,
    GATEWAY_SECONDS,
    JOBS,
    JOBS_ENDED,
    METRICS,
    OLDEST_WAITING,
    REDIS_UP,
    SWEEPER_LAPSED,
    SWEEPER_POISONED,
    SWEEPER_STRANDED,
    SWEEPER_STRAYS,
    WORKERS,
    Metric,
)
from maskscore.observability.tracing import (
    Tracing,
    open_tracing,
)

__all__ = [
    "DEAD_LETTERS",
    "GATEWAY_IN_PROGRESS",
    "GATEWAY_REQUESTS",
    "GATEWAY_SECONDS",
    "JOBS",
    "JOBS_ENDED",
    "METRICS",
    "OLDEST_WAITING",
    "REDIS_UP",
    "SWEEPER_LAPSED",
    "SWEEPER_POISONED",
    "SWEEPER_STRANDED",
    "SWEEPER_STRAYS",
    "WORKERS",
    "Metric",
    "Tracing",
    "job_id_logged",
    "log_json_early",
    "log_to_stderr",
    "open_tracing",
]
