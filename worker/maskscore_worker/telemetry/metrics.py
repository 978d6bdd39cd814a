"""The metrics of a worker, as :mod:`maskscore.observability.metrics` declares them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import partial

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from maskscore.errors import FailureCode, SkipCode
from maskscore.exporter import counter, gauge, gauge_family, histogram, new_registry, sweep_counters
from maskscore.ledger import Claim
from maskscore.observability import metrics as declared
from maskscore_worker.telemetry.gpu_usage import GpuUsage
from maskscore_worker.telemetry.stage_timer import StageTimer

__all__ = ["WorkerMetrics"]

_STAGES = ("fetch", "decode", "regions", "crops", "encode", "scoring", "store")


class WorkerMetrics:
    """The counts of one worker process; safe to use from any thread.

    ``jobs_done`` counts the attempts that ended, ``masks_done`` the masks of succeeded jobs.
    """

    def __init__(self) -> None:
        self.registry = new_registry()
        self.jobs_done = 0
        self.masks_done = 0
        self._lock = threading.Lock()
        self._jobs = counter(declared.JOBS_FINISHED, self.registry)
        self._masks = counter(declared.MASKS, self.registry)
        self._stages = histogram(declared.STAGE_SECONDS, self.registry)
        self._wait = histogram(declared.QUEUE_WAIT, self.registry)
        self._crops = histogram(declared.BATCH_CROPS, self.registry)
        self._leases = counter(declared.LEASES, self.registry)
        self._rejected = counter(declared.MESSAGES_REJECTED, self.registry)
        self._spot_checks = counter(declared.SPOT_CHECKS, self.registry)
        self.swept = sweep_counters(self.registry)
        """What the worker's sweeper is given."""
        # Series that begin with their first failure would hide it from `rate` and `increase`.
        for outcome in ("succeeded", "cancelled", "expired", "released", "dropped"):
            self._jobs.labels(outcome, "")
        for failure in FailureCode:
            if failure not in (FailureCode.CANCELLED, FailureCode.EXPIRED):
                self._jobs.labels("failed", failure)
                self._jobs.labels("retried", failure)
        self._masks.labels("scored", "")
        for skip in SkipCode:
            self._masks.labels("skipped", skip)
        for answer in ("renewed", "lost", "cancelled"):
            self._leases.labels(answer)
        for stage in _STAGES:
            self._stages.labels(stage)
        for outcome in ("agreed", "differed"):
            self._spot_checks.labels(outcome)

    def claimed(self, claim: Claim) -> None:
        """Note how long a job has waited, the first time that it is taken."""
        if claim.attempt == 1 and not claim.retries and not claim.cursor:
            self._wait.observe(max(0.0, (claim.claimed_at - claim.submitted_at).total_seconds()))

    def ended(self, outcome: str, code: str, timer: StageTimer) -> None:
        """Count an attempt that has come to its outcome, and its stages."""
        self._jobs.labels(outcome, code).inc()
        for name in _STAGES:
            if name in timer.stages:
                self._stages.labels(name).observe(timer.seconds(name))
        with self._lock:
            self.jobs_done += 1

    def scored(self, skipped: Mapping[str, int], scored: int) -> None:
        """Count the masks of a succeeded job, or of a committed part; ``skipped`` by code."""
        self._masks.labels("scored", "").inc(scored)
        for code, count in skipped.items():
            self._masks.labels("skipped", code).inc(count)
        with self._lock:
            self.masks_done += scored + Counter(skipped).total()

    def encoded(self, crops: int) -> None:
        """Count a forward pass."""
        self._crops.observe(crops)

    def renewed(self, answer: str) -> None:
        """Count the ledger's answer to a renewal."""
        self._leases.labels(answer).inc()

    def rejected(self) -> None:
        """Count a message that was dropped."""
        self._rejected.inc()

    def show_model(self, **identity: str) -> None:
        """Show what computes the scores: the labels of ``maskscore_model_info``."""
        gauge(declared.MODEL_INFO, self.registry).labels(**identity).set(1)

    def show_stepped_down(self, parts: Iterable[str], stepped_down: Callable[[], Container[str]]) -> None:
        """Show which parts of the fast path have been stepped down, as asked at each scrape."""
        shown = gauge(declared.STEPPED_DOWN, self.registry)
        for part in parts:
            shown.labels(part).set_function(partial(_contains, stepped_down, part))

    def spot_checked(self, agreed: bool) -> None:
        """Count a comparison of the running fast path with the plain one."""
        self._spot_checks.labels("agreed" if agreed else "differed").inc()

    def show_live(
        self, *, in_flight: Callable[[], int], fill: Callable[[], float], gpu: Callable[[], GpuUsage | None]
    ) -> None:
        """Show what is asked for at each scrape."""
        gauge(declared.IN_FLIGHT, self.registry).set_function(in_flight)
        gauge(declared.BATCH_FILL, self.registry).set_function(fill)
        self.registry.register(_Gpu(gpu))


def _contains(found: Callable[[], Container[str]], part: str) -> float:
    return float(part in found())


class _Gpu(Collector):
    """Gauges that are absent where there is no GPU to ask."""

    def __init__(self, gpu: Callable[[], GpuUsage | None]) -> None:
        self._gpu = gpu

    def describe(self) -> Iterator[Metric]:
        yield from map(gauge_family, (declared.DEVICE_MEMORY, declared.DEVICE_UTILIZATION))

    def collect(self) -> Iterator[Metric]:
        use = self._gpu()
        if use is None:
            return
        memory = gauge_family(declared.DEVICE_MEMORY)
        memory.add_metric(["used"], use.memory_used)
        memory.add_metric(["total"], use.memory_total)
        yield memory
        if use.utilization is not None:
            busy = gauge_family(declared.DEVICE_UTILIZATION)
            busy.add_metric([], use.utilization)
            yield busy
