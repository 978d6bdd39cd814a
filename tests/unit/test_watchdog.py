"""What the watchdog detects as a stall, with times that are given to it."""

from __future__ import annotations

import threading
from dataclasses import replace

from maskscore_worker.batching import BatcherStats
from maskscore_worker.monitoring.watchdog import Observation, StallDetector, Watchdog

IDLE = BatcherStats(0, 0, 0.0, 0, 0, 64, 0.0)
BUSY = replace(IDLE, encoding_crops=8)
QUIET = Observation(IDLE, taken=0, room=True, oldest_start=None, waiting=0, oldest_waiting_s=0.0, tickets=0)
JOBS_WAIT = replace(QUIET, waiting=5, oldest_waiting_s=600.0, tickets=5)


def verdicts(*seen: tuple[float, Observation]) -> list[str | None]:
    stall_detector = StallDetector(patience_s=100, job_timeout_s=1000, now=0)
    return [stall_detector.detect(observation, now) for now, observation in seen]


def test_an_idle_worker_is_left_alone() -> None:
    assert verdicts((0, QUIET), (1e6, QUIET), (2e6, QUIET)) == [None] * 3


def test_a_device_that_does_not_end_a_batch() -> None:
    busy = replace(QUIET, batcher=BUSY)
    *fine, bad = verdicts((0, QUIET), (1e6, busy), (1e6 + 90, busy), (1e6 + 191, busy))
    assert fine == [None] * 3
    assert bad is not None
    assert "crops to encode for 191 s" in bad


def test_a_device_that_ends_batches_is_left_alone() -> None:
    seen = [(t, replace(QUIET, batcher=replace(BUSY, last_progress=float(t)))) for t in range(0, 2000, 90)]
    assert set(verdicts(*seen)) == {None}


def test_jobs_that_nobody_takes_though_there_is_room() -> None:
    *fine, bad = verdicts((0, QUIET), (10, JOBS_WAIT), (60, JOBS_WAIT), (111, JOBS_WAIT))
    assert fine == [None] * 3
    assert bad is not None
    assert "5 jobs wait" in bad


def test_jobs_that_wait_with_good_reason() -> None:
    full = replace(JOBS_WAIT, room=False)
    fresh = replace(JOBS_WAIT, oldest_waiting_s=10.0)
    unknown = replace(JOBS_WAIT, waiting=None)
    # What has no tickets is the sweeper's business: ending this worker would help nobody.
    lost = replace(JOBS_WAIT, tickets=0)
    for reason in (full, fresh, unknown, lost):
        assert set(verdicts((0, QUIET), *((t, reason) for t in range(10, 1000, 10)))) == {None}
    taking = [(t, replace(JOBS_WAIT, taken=t)) for t in range(10, 1000, 90)]
    assert set(verdicts((0, QUIET), *taking)) == {None}


def test_a_job_that_does_not_stop_itself() -> None:
    stuck = replace(QUIET, oldest_start=50.0)
    fine, bad = verdicts((1100, stuck), (1151, stuck))
    assert fine is None
    assert bad is not None
    assert "running for 1101 s" in bad


def test_the_thread_reports_a_stall() -> None:
    stalled = threading.Event()
    reasons: list[str] = []

    def on_stall(reason: str) -> None:
        reasons.append(reason)
        stalled.set()

    stall_detector = StallDetector(patience_s=0.02, job_timeout_s=1000, now=0)
    watchdog = Watchdog(lambda: JOBS_WAIT, stall_detector, on_stall, every_s=0.005)
    watchdog.start()
    assert stalled.wait(60)
    watchdog.close()
    assert "5 jobs wait" in reasons[0]
