"""The pool's supervisor with real processes that load no model: restarts, rolling restarts, draining, killing."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from maskscore.pool.restart_backoff import RestartBackoff
from maskscore.pool.scaling import BacklogSample, PoolLimits
from maskscore.pool.supervisor import Supervisor
from maskscore.pool.worker_process import WorkerProcess
from maskscore.pool.worker_slots import WorkerSlot, slots_of_models

# What a worker promises: it writes its file when it takes jobs, and drains on SIGTERM.
WORKER = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
life = pathlib.Path(os.environ["LIFE"])
if name := os.environ.get("MASKSCORE_MODEL_NAME"):
    with (life / "models").open("a") as models:
        models.write(name + " " + os.environ["MASKSCORE_WEIGHTS"] + "\\n")
with (life / "ports").open("a") as ports:
    ports.write(os.environ.get("MASKSCORE_HTTP_PORT", "none") + "\\n")
{first}
pathlib.Path(os.environ["MASKSCORE_READY_FILE"]).write_text("ready")
while True:
    time.sleep(0.05)
"""
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
BROKEN_LATER = "if (life / 'break').exists(): sys.exit(1)"
BROKEN = "sys.exit(2)"

Scenario = Iterator[Callable[[], bool] | int]
DEADLINE_S = 60.0


class Stage:
    """A supervisor whose view of the backlog plays a scenario, which waits for conditions and sets the jobs."""

    def __init__(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "maskscore.pool")
        self.life = tmp_path
        self.said = caplog
        self.jobs = 0
        self.jobs_of: dict[str, int] = {}
        """By model, where they are not `jobs`."""

    def play(
        self,
        scenario: Scenario,
        *,
        first: str = "",
        slots: int = 2,
        least: int = 0,
        drain_s: float = 30,
        pause_s: float = 0.1,
        models: dict[str, str] | None = None,
        **more: str,
    ) -> int:
        """Run until the scenario has ended and the workers with it, and return the exit code."""
        condition: Callable[[], bool] | None = lambda: True  # noqa: E731
        deadline = time.monotonic() + DEADLINE_S

        def seen(model: str) -> list[BacklogSample]:
            nonlocal condition
            assert time.monotonic() < deadline, f"this never came; the pool said:\n{self.said.text}"
            while condition is not None and condition():
                wanted = next(scenario, None)
                if wanted is None:
                    condition = None
                    os.kill(os.getpid(), signal.SIGTERM)
                elif callable(wanted):
                    condition = wanted
                else:
                    self.jobs = wanted
            return [BacklogSample(time.monotonic(), self.jobs_of.get(model, self.jobs))]

        places = [WorkerSlot(f"slot {n}") for n in range(slots)]
        supervisor = Supervisor(
            slots_of_models(places, models) if models else places,
            [sys.executable, "-I", "-S", "-c", WORKER.format(first=first)],
            {**os.environ, "LIFE": str(self.life), **more},
            seen,
            PoolLimits(0, slots, 10, 0),
            load_s=30,
            drain_s=drain_s,
            restarts=lambda: RestartBackoff(first_s=pause_s, most_s=1),
        )
        return supervisor.run()

    def count(self, words: str) -> int:
        """How many lines hold these words."""
        return sum(words in record.getMessage() for record in self.said.records)

    def heard(self, words: str, times: int = 1) -> Callable[[], bool]:
        """Whether the pool has said these words so often."""
        return lambda: self.count(words) >= times

    def pid(self, number: int) -> int:
        """The process id of a worker."""
        line = next(r.getMessage() for r in self.said.records if f"worker {number} on" in r.getMessage())
        return int(line.split("pid ")[1].split(",")[0])


@pytest.fixture
def stage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Stage:
    return Stage(tmp_path, caplog)


def test_it_grows_shrinks_to_nothing_and_stops(stage: Stage) -> None:
    def scenario() -> Scenario:
        yield 15
        yield stage.heard("takes jobs", 2)
        yield 5
        yield stage.heard("has drained")
        assert "worker 2 on slot 1 has drained" in stage.said.text
        yield 0
        yield stage.heard("has drained", 2)
        yield 1
        yield stage.heard("takes jobs", 3)

    assert stage.play(scenario()) == 0
    assert stage.count("ended by itself") == 0


def test_the_workers_of_each_model_follow_its_own_jobs(stage: Stage) -> None:
    def scenario() -> Scenario:
        stage.jobs_of = {"small": 1, "large": 15}
        yield stage.heard("takes jobs", 3)
        stage.jobs_of = {"small": 15, "large": 0}
        yield lambda: stage.count("takes jobs") == 4 and stage.count("has drained") == 2

    assert stage.play(scenario(), models={"small": "weights/s", "large": "weights/l"}) == 0
    assert "jobs of the model large: 15; workers: 0 → 2" in stage.said.text
    assert "worker 4 on slot 1 small takes jobs" in stage.said.text
    served = (stage.life / "models").read_text().splitlines()
    assert sorted(served) == ["large weights/l"] * 2 + ["small weights/s"] * 2


def test_a_dead_worker_comes_back_at_its_place(stage: Stage) -> None:
    def scenario() -> Scenario:
        yield 20
        yield stage.heard("takes jobs", 2)
        os.kill(stage.pid(1), signal.SIGKILL)
        yield stage.heard("takes jobs", 3)

    assert stage.play(scenario()) == 0
    assert "worker 1 on slot 0 ended by itself, signal SIGKILL; next start in 0.1 s" in stage.said.text
    assert "worker 3 on slot 0 takes jobs" in stage.said.text


def test_a_place_that_kills_its_workers_is_left_for_another(stage: Stage) -> None:
    def scenario() -> Scenario:
        yield 1
        yield stage.heard("worker 1 on slot 0 takes jobs")
        os.kill(stage.pid(1), signal.SIGKILL)
        yield stage.heard("takes jobs", 2)

    stage.play(scenario(), pause_s=1)
    assert "worker 2 on slot 1 takes jobs" in stage.said.text


def test_sighup_replaces_each_when_its_successor_takes_jobs(stage: Stage) -> None:
    def scenario() -> Scenario:
        yield 20
        yield stage.heard("takes jobs", 2)
        os.kill(os.getpid(), signal.SIGHUP)
        yield stage.heard("has drained", 2)

    assert stage.play(scenario()) == 0
    said = [record.getMessage() for record in stage.said.records]
    moments = [
        next(n for n, line in enumerate(said) if line.startswith(words))
        for words in (
            "worker 3 on slot 0 takes jobs",
            "worker 1 on slot 0 is drained",
            "worker 4 on slot 1 takes jobs",
            "worker 2 on slot 1 is drained",
        )
    ]
    assert moments == sorted(moments)


def test_a_system_that_gives_no_process_just_now_leaves_those_that_run_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [OSError(errno.EAGAIN, "Resource temporarily unavailable"), RuntimeError("can't start new thread")]

    def started(number: int, *rest: Any) -> WorkerProcess:
        # The first one runs; the next two cannot be started, whether it is one more or one that takes over.
        if number > 1 and refusals:
            raise refusals.pop(0)
        return WorkerProcess(number, *rest)

    monkeypatch.setattr("maskscore.pool.supervisor.WorkerProcess", started)

    def scenario() -> Scenario:
        yield 5
        yield stage.heard("takes jobs")
        yield 15
        yield stage.heard("takes jobs", 2)
        assert stage.count("no worker could be started on slot 1") == 2
        assert stage.count("ended by itself") == 0
        refusals.append(OSError(errno.ENOMEM, "Cannot allocate memory"))
        os.kill(os.getpid(), signal.SIGHUP)
        yield stage.heard("takes jobs", 4)
        assert stage.count("no worker could be started") == 3

    assert stage.play(scenario(), pause_s=0.01) == 0


def test_each_worker_has_an_http_port_of_its_own(stage: Stage) -> None:
    def scenario() -> Scenario:
        yield 20
        yield stage.heard("takes jobs", 2)
        os.kill(os.getpid(), signal.SIGHUP)
        yield stage.heard("has drained", 2)

    stage.play(scenario(), MASKSCORE_HTTP_PORT="9400")
    ports = (stage.life / "ports").read_text().split()
    # The third ran beside both; the fourth may have begun before or after the first was gone.
    assert sorted(ports[:3]) == ["9400", "9401", "9402"]
    assert ports[3] in ("9400", "9403")


def test_a_successor_that_cannot_start_leaves_the_old_ones_alone(stage: Stage) -> None:
    def scenario() -> Scenario:
        yield 20
        yield stage.heard("takes jobs", 2)
        (stage.life / "break").touch()
        os.kill(os.getpid(), signal.SIGHUP)
        yield stage.heard("could not take over")
        (stage.life / "break").unlink()
        assert stage.count("is drained") == 0
        for number in (1, 2):
            os.kill(stage.pid(number), 0)

    assert stage.play(scenario(), first=BROKEN_LATER) == 0


def test_what_can_never_start_ends_the_pool_with_its_code(stage: Stage) -> None:
    def scenario() -> Scenario:
        yield 1
        yield lambda: False

    assert stage.play(scenario(), first=BROKEN) == 2
    assert "no worker can start" in stage.said.text


def test_one_that_does_not_drain_is_killed(stage: Stage) -> None:
    def scenario() -> Scenario:
        yield 1
        yield stage.heard("takes jobs")

    assert stage.play(scenario(), first=STUBBORN, drain_s=0.5) == 0
    assert "has not drained within 0.5 s and is killed" in stage.said.text


def test_the_third_signal_kills(stage: Stage) -> None:
    def scenario() -> Scenario:
        yield 1
        yield stage.heard("takes jobs")
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)

    assert stage.play(scenario(), first=STUBBORN) == 0
    assert [stage.count(words) for words in ("give back what runs", "are killed", "SIGKILL")] == [1, 1, 1]
