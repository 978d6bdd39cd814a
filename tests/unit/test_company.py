"""Jobs beside each other, and one alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from maskscore_worker.jobs.exclusive_gate import Company


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about within 60 s"
        time.sleep(0.001)


def test_ordinary_jobs_run_beside_each_other() -> None:
    company, together = Company(), threading.Barrier(4, timeout=60)

    def job() -> None:
        with company.beside_others():
            together.wait()

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(job) for _ in range(4)]:
            future.result()


def test_a_suspect_waits_for_the_others_and_nothing_begins_beside_it() -> None:
    company, events = Company(), list[str]()
    leave, entered = threading.Event(), threading.Event()

    def ordinary(name: str, wait: bool) -> None:
        with company.beside_others():
            events.append(f"{name} in")
            entered.set()
            if wait:
                leave.wait(60)
            events.append(f"{name} out")

    def suspect() -> None:
        with company.alone():
            events.append("suspect in")
            time.sleep(0.02)
            events.append("suspect out")

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(ordinary, "first", True)
        assert entered.wait(60)
        alone = threads.submit(suspect)
        until(lambda: company._waiting == 1)
        later = threads.submit(ordinary, "later", False)
        leave.set()
        for future in (first, alone, later):
            future.result(10)
    assert events == ["first in", "first out", "suspect in", "suspect out", "later in", "later out"]


def test_suspects_are_alone_from_each_other_too() -> None:
    company, inside = Company(), list[int]()

    def suspect() -> None:
        with company.alone():
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.005)
            inside.pop()

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(suspect) for _ in range(8)]:
            future.result(10)


def test_a_job_that_fails_leaves_no_lock_behind() -> None:
    company = Company()
    for way in (company.alone, company.beside_others, company.alone):
        try:
            with way():
                raise MemoryError
        except MemoryError:
            pass
