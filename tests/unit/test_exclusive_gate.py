"""The exclusive gate lets jobs run together or one alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from maskscore_worker.jobs.exclusive_gate import ExclusiveGate
from waiting import until


def test_ordinary_jobs_run_beside_each_other() -> None:
    gate, together = ExclusiveGate(), threading.Barrier(4, timeout=60)

    def job() -> None:
        with gate.shared():
            together.wait()

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(job) for _ in range(4)]:
            future.result()


def test_a_suspect_waits_for_the_others_and_nothing_begins_beside_it() -> None:
    gate, events = ExclusiveGate(), list[str]()
    leave, entered = threading.Event(), threading.Event()

    def ordinary(name: str, wait: bool) -> None:
        with gate.shared():
            events.append(f"{name} in")
            entered.set()
            if wait:
                leave.wait(60)
            events.append(f"{name} out")

    def suspect() -> None:
        with gate.exclusive(lambda: events.append("waits"), 0.01):
            events.append("suspect in")
            time.sleep(0.02)
            events.append("suspect out")

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(ordinary, "first", True)
        assert entered.wait(60)
        alone = threads.submit(suspect)
        until(lambda: "waits" in events)
        later = threads.submit(ordinary, "later", False)
        leave.set()
        for future in (first, alone, later):
            future.result(10)
    assert "waits" in events[: events.index("first out")]
    assert [event for event in events if event != "waits"] == [
        "first in",
        "first out",
        "suspect in",
        "suspect out",
        "later in",
        "later out",
    ]


def test_suspects_are_alone_from_each_other_too() -> None:
    gate, inside = ExclusiveGate(), list[int]()

    def suspect() -> None:
        with gate.exclusive(lambda: None, 60):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.005)
            inside.pop()

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(suspect) for _ in range(8)]:
            future.result(10)


def test_a_job_that_fails_leaves_no_lock_behind() -> None:
    gate = ExclusiveGate()
    exclusive = partial(gate.exclusive, lambda: None, 60)
    for way in (exclusive, gate.shared, exclusive):
        try:
            with way():
                raise MemoryError
        except MemoryError:
            pass


def test_a_suspect_that_cannot_wait_on_lets_the_others_go_on() -> None:
    gate = ExclusiveGate()

    def fail() -> None:
        raise ConnectionError

    with gate.shared():
        with pytest.raises(ConnectionError), gate.exclusive(fail, 0.01):
            pass
        assert gate.is_open
