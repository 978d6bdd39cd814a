"""The Prometheus exporter and its HTTP endpoint. Needs the extra ``metrics``."""

from __future__ import annotations

from maskscore.exporter.http_endpoint import Endpoint
from maskscore.exporter.ledger_exporter import run_exporter
from maskscore.exporter.prometheus import counter, gauge, gauge_family, histogram, new_registry, sweep_counters

__all__ = [
    "Endpoint",
    "counter",
    "gauge",
    "gauge_family",
    "histogram",
    "new_registry",
    "run_exporter",
    "sweep_counters",
]
