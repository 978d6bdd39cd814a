"""The declared metrics as objects of ``prometheus_client``. Needs the extra ``metrics``."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from maskscore.ledger import SweepResult
from maskscore.observability.metrics import SWEEPER_LAPSED, SWEEPER_MISSING, SWEEPER_POISONED, SWEEPER_STRAYS, Metric

__all__ = ["counter", "counter_family", "gauge", "gauge_family", "histogram", "new_registry", "sweep_counters"]

# One more time series per label set, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]


def new_registry() -> CollectorRegistry:
    """Return a registry with the usual metrics of the process itself."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    """Return the counter; one without labels begins at 0."""
    return Counter(metric.name, metric.help, list(metric.labels), registry=registry)


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    """Return the gauge."""
    return Gauge(metric.name, metric.help, list(metric.labels), registry=registry)


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    """Return the histogram, with the declared buckets."""
    return Histogram(metric.name, metric.help, list(metric.labels), registry=registry, buckets=metric.buckets)


def gauge_family(metric: Metric) -> GaugeMetricFamily:
    """Return a gauge whose samples a collector adds at each scrape."""
    return GaugeMetricFamily(metric.name, metric.help, labels=list(metric.labels))


def counter_family(metric: Metric) -> CounterMetricFamily:
    """Return a counter whose samples a collector adds at each scrape."""
    return CounterMetricFamily(metric.name, metric.help, labels=list(metric.labels))


def sweep_counters(registry: CollectorRegistry) -> Callable[[SweepResult], None]:
    """Return a function that counts what the sweeper's rounds changed, for its ``on_sweep``."""
    lapsed = counter(SWEEPER_LAPSED, registry)
    poisoned = counter(SWEEPER_POISONED, registry)
    missing = counter(SWEEPER_MISSING, registry)
    strays = counter(SWEEPER_STRAYS, registry)

    def count(swept: SweepResult) -> None:
        lapsed.inc(swept.lapsed)
        poisoned.inc(swept.poisoned)
        missing.inc(swept.missing)
        strays.inc(len(swept.strays))

    return count
