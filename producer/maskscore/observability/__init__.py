"""What is measured and logged: the declarations of metrics (the module ``metrics``), traces and logs."""

from __future__ import annotations

from maskscore.observability.logs import job_id_logged, log_json_early, log_to_stderr
from maskscore.observability.metrics import METRICS, Metric
from maskscore.observability.tracing import Tracing, open_tracing

__all__ = ["METRICS", "Metric", "Tracing", "job_id_logged", "log_json_early", "log_to_stderr", "open_tracing"]
