"""What a worker says about itself: rates, probes, the stages of a job, its GPU."""

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

from maskscore.ledger import Claim
from maskscore.ledger.worker_registry import WorkerHeartbeat, WorkerRegistry
from maskscore.settings import WorkerSettings
from maskscore_worker.batcher import BatcherStats
from maskscore_worker.jobs.shutdown import Drain
from maskscore_worker.model.device_check import DeviceBroken, DeviceCheck
from maskscore_worker.monitoring.health import Health
from maskscore_worker.monitoring.heartbeat import Recent
from maskscore_worker.monitoring.watchdog import Observation, Stillness, Watchdog
from maskscore_worker.telemetry.gpu_usage import gpu_use
from maskscore_worker.telemetry.metrics import Meter
from maskscore_worker.telemetry.stage_timer import Stopwatch


def stats(crops: int, fill: float) -> BatcherStats:
    return BatcherStats(0, crops, fill, 0, 0, 64, 0.0)


def test_rates_are_of_the_last_ten_seconds() -> None:
    recent = Recent()
    assert (recent.masks_per_s, recent.fill) == (0, 0)
    recent.note(0, 0, stats(0, 0.0))
    recent.note(2, 100, stats(100, 0.5))
    assert recent.masks_per_s == 50
    assert recent.fill == pytest.approx(0.5)
    # 300 more in full batches, and then nothing for long.
    for second in (4, 6, 8, 10, 12):
        recent.note(second, 400, stats(400, 0.8))
    assert recent.masks_per_s == 30
    assert recent.fill == pytest.approx(1.0)
    recent.note(14, 400, stats(400, 0.8))
    assert (recent.masks_per_s, recent.fill) == (0, 0)


def test_a_stopwatch_adds_up_the_pieces_of_a_stage_and_keeps_its_ends() -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch.stage("crops"):
            time.sleep(0.002)
        with watch.stage("encode"):
            time.sleep(0.001)
    with pytest.raises(ZeroDivisionError), watch.stage("scoring"):
        _ = 1 / 0
    crops, encode, scoring = (watch.stages[name] for name in ("crops", "encode", "scoring"))
    assert watch.begin_ns <= crops.begin_ns < encode.begin_ns < crops.end_ns < encode.end_ns <= scoring.begin_ns
    assert scoring.end_ns <= watch.now_ns()
    assert 0.004 <= watch.seconds("crops") < (crops.end_ns - crops.begin_ns) / 1e9
    assert watch.seconds("fetch") == 0
    assert abs(watch.now_ns() - time.time_ns()) < 5e9


def test_the_wait_is_counted_at_the_first_claim_alone() -> None:
    meter = Meter()
    now = datetime.now(UTC)
    for attempt, retries in ((1, 0), (1, 1), (2, 0)):
        meter.claimed(Claim("a", "t", attempt, retries, b"", now - timedelta(seconds=3), now))
    assert meter.registry.get_sample_value("maskscore_queue_wait_seconds_count") == 1
    assert meter.registry.get_sample_value("maskscore_queue_wait_seconds_sum") == 3


def test_a_cpu_has_no_gpu_to_show() -> None:
    assert gpu_use(torch.device("cpu")) is None
    meter = Meter()
    meter.show_live(in_flight=lambda: 0, fill=lambda: 0.0, gpu=lambda: gpu_use(torch.device("cpu")))
    names = {sample.name for metric in meter.registry.collect() for sample in metric.samples}
    assert "maskscore_batch_fill_ratio" in names
    assert not any(name.startswith("maskscore_device_") for name in names)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpus_memory_and_utilisation() -> None:
    device = torch.device("cuda", 0)
    held = torch.ones(256, 1024, 1024, device=device)
    use = gpu_use(device)
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
def drain() -> Iterator[Drain]:
    drain = Drain(60, hurry=lambda: None)
    drain.start()
    yield drain
    drain.close()


def test_liveness_is_what_the_watchdog_judges(drain: Drain) -> None:
    bitten = threading.Event()
    standstill = Observation(
        stats(0, 0.0), taken=0, room=True, oldest_start=None, waiting=5, oldest_waiting_s=600.0, messages=5
    )
    stillness = Stillness(patience_s=0.05, job_timeout_s=900, now=time.monotonic())
    watchdog = Watchdog(lambda: standstill, stillness, lambda _: bitten.set(), every_s=0.005)
    health = observed(watchdog, drain)
    assert health.live() is None
    watchdog.start()
    assert bitten.wait(60)
    watchdog.close()
    assert "5 jobs wait" in str(health.live())
    assert health.ready() == health.live()


def test_a_watchdog_that_does_not_look_is_no_sign_of_life(drain: Drain) -> None:
    stillness = Stillness(patience_s=1, job_timeout_s=900, now=0)
    watchdog = Watchdog(lambda: pytest.fail("not started"), stillness, lambda _: None, every_s=1)
    health = observed(watchdog, drain)
    watchdog.looked_at -= 160
    assert health.live() is None
    watchdog.looked_at -= 20
    assert health.live() == "the watchdog has not looked for 180 s"


def test_a_draining_worker_lives_and_is_not_ready(drain: Drain) -> None:
    stillness = Stillness(patience_s=1, job_timeout_s=900, now=0)
    health = observed(Watchdog(lambda: pytest.fail("not started"), stillness, lambda _: None, every_s=1), drain)
    drain.request()
    assert "it is draining" in str(health.ready())
    assert health.live() is None


def observed(watchdog: Watchdog, drain: Drain, device: DeviceCheck | None = None) -> Health:
    """The probes of a worker with the default settings: 120 s of patience, and 5 × 10 s for a silent Redis."""
    health = Health(WorkerSettings())
    health.consuming = True
    heartbeat = WorkerHeartbeat(WorkerRegistry(redis.Redis(), namespace="none"), lambda: pytest.fail("not started"))
    health.observe(watchdog, drain, heartbeat, device=device)
    return health


def test_a_worker_with_a_broken_device_is_neither_alive_nor_ready_at_once(drain: Drain) -> None:
    stillness = Stillness(patience_s=60, job_timeout_s=900, now=time.monotonic())
    watchdog = Watchdog(lambda: pytest.fail("not started"), stillness, lambda _: None, every_s=1)

    def probe() -> npt.NDArray[np.float32]:
        raise RuntimeError("CUDA error: unknown error")

    check = DeviceCheck(probe)
    health = observed(watchdog, drain, check)
    assert health.live() is None
    with pytest.raises(DeviceBroken):
        check.after(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert str(health.live()).startswith("the device is broken: after an error (RuntimeError: CUDA error: an illegal")
    assert health.ready() == health.live()
