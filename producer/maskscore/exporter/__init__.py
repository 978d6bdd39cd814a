"""The Prometheus exporter and its HTTP endpoint. Needs the extra ``metrics``."""

from __future__ import annotations

from maskscore.exporter.exporter import (
    run_exporter,
)
from maskscore.exporter.http_endpoint import (
    Endpoint,
)
from maskscore.exporter.prometheus import (
    counter,
    family,
    gauge,
    histogram,
    keeper_counters,
    new_registry,
)

__all__ = [
    "Endpoint",
    "counter",
    "family",
    "gauge",
    "histogram",
    "keeper_counters",
    "new_registry",
    "run_exporter",
]
