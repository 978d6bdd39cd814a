"""The exporter: the ledger's numbers for Prometheus, and a sweeper, so that both are there without any worker.

Needs the extra ``metrics``.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

import redis
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.backoff import NoBackoff
from redis.retry import Retry

from maskscore.broker import connect, public_url, redis_reason, refuse_cluster
from maskscore.errors import FailureCode
from maskscore.exporter.http_endpoint import Endpoint
from maskscore.exporter.prometheus import counter_family, gauge_family, new_registry, sweep_counters
from maskscore.ledger import ModelBacklog, Sweeper, TenantStates, WorkerRegistry, open_ledger
from maskscore.observability.metrics import (
    DEAD_LETTERS,
    JOBS,
    JOBS_ENDED,
    MODEL_JOBS,
    MODEL_WORKERS,
    OLDEST_WAITING,
    REDIS_UP,
    TENANT_JOBS,
    WORKERS,
)
from maskscore.schema import DEFAULT_MODEL_NAME
from maskscore.settings import WorkerSettings

__all__ = ["DEFAULT_PORT", "LedgerCollector", "model_gauges", "run_exporter", "tenant_gauge"]

log = logging.getLogger(__name__)

DEFAULT_PORT = 9808
_GAUGES = (JOBS, DEAD_LETTERS, OLDEST_WAITING, WORKERS, MODEL_JOBS, MODEL_WORKERS, TENANT_JOBS, REDIS_UP)
# Whoever submits may ask for any name: series must stay few.
_MOST_MODELS = 50
_OTHER_MODELS = "_other"
_MOST_TENANTS = 20
_SIGNAL_SEEN_S = 0.5
_OTHER_TENANTS = "_other"
_STATES = ("waiting", "running", "delayed")
# Two tries fit into Prometheus's usual 10 s for a scrape.
_MOST_TIMEOUT_S = 3.0
# What `rate` and `increase` see must have been 0 before it was 1.
_ENDS = [
    *(("failed", code.value) for code in FailureCode if code not in (FailureCode.CANCELLED, FailureCode.EXPIRED)),
    *((state, "") for state in ("succeeded", "cancelled", "expired")),
]


def run_exporter(settings: WorkerSettings, stop: threading.Event, started: Callable[[int], None]) -> None:
    """Serve ``/metrics`` and ``/healthz``, and keep the ledger, until ``stop`` is set.

    ``started`` is called with the port. It begins and goes on while Redis is away. Raises
    :class:`~maskscore.errors.SettingsError` when the port cannot be opened, or Redis runs in cluster mode.
    """
    registry = new_registry()
    with ExitStack() as stack:
        client = stack.enter_context(connect(settings))
        refuse_cluster(client, settings)
        ledger = open_ledger(client, settings)
        name = f"exporter-{socket.gethostname()}-{os.getpid()}"
        sweeper = Sweeper(ledger, settings, name=name, on_sweep=sweep_counters(registry))
        registry.register(LedgerCollector(settings))
        probe = {"/healthz": lambda: None if sweeper.alive else "the sweeper has ended"}
        endpoint = Endpoint(settings.http_host, settings.http_port or DEFAULT_PORT, registry, probe)
        for thread in (sweeper, endpoint):
            thread.start()
            stack.callback(thread.close)
        log.info(
            "serving http://%s:%d/metrics of %s, namespace %r",
            settings.http_host,
            endpoint.port,
            public_url(settings.redis_url),
            settings.namespace,
        )
        started(endpoint.port)
        # CPython can miss a signal that comes while the main thread goes to sleep without a time limit.
        while not stop.wait(_SIGNAL_SEEN_S):
            pass


class LedgerCollector(Collector):
    """Asks the ledger at each scrape, so that nothing old is ever shown."""

    def __init__(self, settings: WorkerSettings) -> None:
        timeout_s = min(settings.redis_timeout_s, _MOST_TIMEOUT_S)
        client = connect(settings.model_copy(update={"redis_timeout_s": timeout_s}))
        # The second try is for a connection that was left over from before a restart of Redis.
        client.set_retry(Retry(NoBackoff(), 1))
        self._ledger = open_ledger(client, settings)
        self._workers = WorkerRegistry(client, namespace=settings.namespace)

    def describe(self) -> Iterator[Metric]:
        """Name the metrics without asking Redis."""
        yield from map(gauge_family, _GAUGES)
        yield counter_family(JOBS_ENDED)

    def collect(self) -> Iterator[Metric]:
        """Ask, and return the gauges; only ``maskscore_redis_up`` where Redis does not answer."""
        try:
            backlog = self._ledger.backlog()
            totals = self._ledger.totals()
            workers = self._workers.count()
            tenants = self._ledger.tenant_states()
            serving = Counter(worker.report.model for worker in self._workers.workers())
        except redis.RedisError as error:
            log.warning("Redis did not answer a scrape: %s", redis_reason(error))
            yield _with_value(gauge_family(REDIS_UP), 0)
            return
        yield _with_value(gauge_family(REDIS_UP), 1)
        jobs = gauge_family(JOBS)
        for state in _STATES:
            jobs.add_metric([state], getattr(backlog, state))
        yield jobs
        ended = counter_family(JOBS_ENDED)
        for (state, code), count in {**dict.fromkeys(_ENDS, 0), **totals}.items():
            ended.add_metric([state, code], count)
        yield ended
        yield _with_value(gauge_family(DEAD_LETTERS), backlog.dead)
        yield _with_value(gauge_family(OLDEST_WAITING), backlog.oldest_waiting_s)
        yield _with_value(gauge_family(WORKERS), workers)
        yield from model_gauges(backlog.models, serving)
        yield tenant_gauge(tenants)


def model_gauges(models: Mapping[str, ModelBacklog], workers: Mapping[str, int]) -> Iterator[Metric]:
    """Return the jobs and the workers of each model, of a bounded number of models; the others are added up."""

    def order(name: str) -> tuple[bool, bool, int, str]:
        jobs = models.get(name, ModelBacklog()).unfinished
        return name != DEFAULT_MODEL_NAME, name not in workers, -jobs, name

    jobs_of: defaultdict[str, Counter[str]] = defaultdict(Counter)
    workers_of: Counter[str] = Counter()
    for place, name in enumerate(sorted({*models, *workers}, key=order)):
        label = name if place < _MOST_MODELS else _OTHER_MODELS
        of_model = models.get(name, ModelBacklog())
        jobs_of[label].update({state: getattr(of_model, state) for state in _STATES})
        workers_of[label] += workers.get(name, 0)
    jobs, serving = gauge_family(MODEL_JOBS), gauge_family(MODEL_WORKERS)
    for label, states in jobs_of.items():
        for state, count in states.items():
            jobs.add_metric([label, state], count)
        serving.add_metric([label], workers_of[label])
    yield jobs
    yield serving


def tenant_gauge(states: TenantStates) -> GaugeMetricFamily:
    """Return the jobs of the tenants that have the most; those of the others are added up."""
    gauge = gauge_family(TENANT_JOBS)
    shown = states.among([state for state in states.tenants if state.waiting or state.running][:_MOST_TENANTS])
    for state in shown.tenants:
        gauge.add_metric([state.name, "waiting"], state.waiting)
        gauge.add_metric([state.name, "running"], state.running)
    gauge.add_metric([_OTHER_TENANTS, "waiting"], shown.other_waiting)
    gauge.add_metric([_OTHER_TENANTS, "running"], shown.other_running)
    return gauge


def _with_value(gauge: GaugeMetricFamily, value: float) -> GaugeMetricFamily:
    gauge.add_metric([], value)
    return gauge
