"""A worker's rates, probes, stage times and GPU figures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pytest
import redis
import torch

from maskscore.ledger import Claim, Ledger
from maskscore.ledger.worker_registry import WorkerHeartbeat, WorkerRegistry
from maskscore.settings import WorkerSettings
from maskscore_worker.batching import BatcherStats
from maskscore_worker.jobs.leases import Leases
from maskscore_worker.jobs.shutdown import Shutdown
from maskscore_worker.model.device_check import DeviceBroken, DeviceCheck
from maskscore_worker.monitoring.health import Health
from maskscore_worker.monitoring.watchdog import Observation, StallDetector, Watchdog
from maskscore_worker.monitoring.worker_status import RecentRates
from maskscore_worker.telemetry.gpu_usage import read_gpu_usage
from maskscore_worker.telemetry.metrics import WorkerMetrics
from maskscore_worker.telemetry.stage_timer import StageTimer


def stats(crops: int, fill: float) -> BatcherStats:
    return BatcherStats(0, crops, fill, 0, 0, 64, 0.0)


def test_rates_are_of_the_last_ten_seconds() -> None:
    recent = RecentRates()
    assert (recent.masks_per_s, recent.fill) == (0, 0)
    recent.add(0, 0, stats(0, 0.0))
    recent.add(2, 100, stats(100, 0.5))
    assert recent.masks_per_s == 50
    assert recent.fill == pytest.approx(0.5)
    # 300 more in full batches, and then nothing for long.
    for second in (4, 6, 8, 10, 12):
        recent.add(second, 400, stats(400, 0.8))
    assert recent.masks_per_s == 30
    assert recent.fill == pytest.approx(1.0)
    recent.add(14, 400, stats(400, 0.8))
    assert (recent.masks_per_s, recent.fill) == (0, 0)


def test_a_stage_timer_adds_up_the_pieces_of_a_stage_and_keeps_its_ends() -> None:
    timer = StageTimer()
    for _ in range(2):
        with timer.stage("crops"):
            time.sleep(0.002)
        with timer.stage("encode"):
            time.sleep(0.001)
    with pytest.raises(ZeroDivisionError), timer.stage("scoring"):
        _ = 1 / 0
    crops, encode, scoring = (timer.stages[name] for name in ("crops", "encode", "scoring"))
    assert timer.begin_ns <= crops.begin_ns < encode.begin_ns < crops.end_ns < encode.end_ns <= scoring.begin_ns
    assert scoring.end_ns <= timer.now_ns()
    assert 0.004 <= timer.seconds("crops") < (crops.end_ns - crops.begin_ns) / 1e9
    assert timer.seconds("fetch") == 0
    assert abs(timer.now_ns() - time.time_ns()) < 5e9


def test_the_wait_is_counted_at_the_first_claim_alone() -> None:
    metrics = WorkerMetrics()
    now = datetime.now(UTC)
    for attempt, retries in ((1, 0), (1, 1), (2, 0)):
        metrics.claimed(Claim("a", "t", attempt, retries, b"", now - timedelta(seconds=3), now))
    assert metrics.registry.get_sample_value("maskscore_queue_wait_seconds_count") == 1
    assert metrics.registry.get_sample_value("maskscore_queue_wait_seconds_sum") == 3


def test_a_cpu_has_no_gpu_to_show() -> None:
    assert read_gpu_usage(torch.device("cpu")) is None
    metrics = WorkerMetrics()
    metrics.show_live(in_flight=lambda: 0, fill=lambda: 0.0, gpu=lambda: read_gpu_usage(torch.device("cpu")))
    names = {sample.name for metric in metrics.registry.collect() for sample in metric.samples}
    assert "maskscore_batch_fill_ratio" in names
    assert not any(name.startswith("maskscore_device_") for name in names)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpus_memory_and_utilisation() -> None:
    device = torch.device("cuda", 0)
    held = torch.ones(256, 1024, 1024, device=device)
    use = read_gpu_usage(device)
    assert use is not None
    assert held.numel() * held.element_size() <= use.memory_used <= use.memory_total
    assert use.utilization is None or 0 <= use.utilization <= 1


def test_a_loading_worker_lives_and_is_not_ready() -> None:
    health = Health(WorkerSettings())
    assert health.live() is None
    assert health.ready() == "the model is being loaded"
    health.consuming = True
    assert health.ready() == "Redis has not answered yet"


@pytest.fixture
def shutdown() -> Iterator[Shutdown]:
    ledger = Ledger(redis.Redis(), namespace="none", ttl_s=60)
    shutdown = Shutdown(
        ledger,
        Leases(ledger, lease_s=60, timeout_s=60),
        grace_s=60,
        claim_timeout_s=60,
        exit_process=lambda _: None,
    )
    shutdown.start()
    yield shutdown
    shutdown.close()


def test_liveness_is_what_the_watchdog_detects(shutdown: Shutdown) -> None:
    stalled = threading.Event()
    standstill = Observation(
        stats(0, 0.0), taken=0, room=True, oldest_start=None, waiting=5, oldest_waiting_s=600.0, tickets=5
    )
    stall_detector = StallDetector(patience_s=0.05, job_timeout_s=900, now=time.monotonic())
    watchdog = Watchdog(lambda: standstill, stall_detector, lambda _: stalled.set(), every_s=0.005)
    health = observed(watchdog, shutdown)
    assert health.live() is None
    watchdog.start()
    assert stalled.wait(60)
    watchdog.close()
    assert "5 jobs wait" in str(health.live())
    assert health.ready() == health.live()


def test_a_watchdog_that_does_not_observe_is_no_sign_of_life(shutdown: Shutdown) -> None:
    stall_detector = StallDetector(patience_s=1, job_timeout_s=900, now=0)
    watchdog = Watchdog(lambda: pytest.fail("not started"), stall_detector, lambda _: None, every_s=1)
    health = observed(watchdog, shutdown)
    watchdog.checked_at -= 160
    assert health.live() is None
    watchdog.checked_at -= 20
    assert health.live() == "the watchdog has not looked for 180 s"


def test_a_draining_worker_lives_and_is_not_ready(shutdown: Shutdown) -> None:
    stall_detector = StallDetector(patience_s=1, job_timeout_s=900, now=0)
    health = observed(Watchdog(lambda: pytest.fail("not started"), stall_detector, lambda _: None, every_s=1), shutdown)
    shutdown.request()
    assert "it is draining" in str(health.ready())
    assert health.live() is None


def observed(watchdog: Watchdog, shutdown: Shutdown, device: DeviceCheck | None = None) -> Health:
    """The probes of a worker with the default settings: 120 s of patience, and 5 × 10 s for a silent Redis."""
    health = Health(WorkerSettings())
    health.consuming = True
    heartbeat = WorkerHeartbeat(WorkerRegistry(redis.Redis(), namespace="none"), lambda: pytest.fail("not started"))
    health.observe(watchdog, shutdown, heartbeat, device=device)
    return health


def test_a_worker_with_a_broken_device_is_neither_alive_nor_ready_at_once(shutdown: Shutdown) -> None:
    stall_detector = StallDetector(patience_s=60, job_timeout_s=900, now=time.monotonic())
    watchdog = Watchdog(lambda: pytest.fail("not started"), stall_detector, lambda _: None, every_s=1)

    def probe() -> npt.NDArray[np.float32]:
        raise RuntimeError("CUDA error: unknown error")

    check = DeviceCheck(probe)
    health = observed(watchdog, shutdown, check)
    assert health.live() is None
    with pytest.raises(DeviceBroken):
        check.probe_after(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert str(health.live()).startswith("the device is broken: after an error (RuntimeError: CUDA error: an illegal")
    assert health.ready() == health.live()
