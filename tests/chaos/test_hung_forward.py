"""A forward that does not return: the watchdog ends the process, its jobs come back by their leases.

The hang is injected from outside: before it becomes a worker, the process registers PyTorch's hook for all modules,
which blocks the forward while a file exists (``hanging_forward.py``).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.form import FORM
from chaos.scenario import Record, Row
from chaos.stage import Stage


@pytest.mark.timeout(900)
def test_hung_forward(stage: Stage, record: Record, tmp_path: Path) -> None:
    marker = tmp_path / "hang"
    sick = stage.fleet.add(Path(__file__).with_name("hanging_forward.py"), CHAOS_HANG_WHILE=str(marker))
    sick.wait()
    with stage.load("hung") as load:
        load.start()
        load.wait_ended(30, FORM.patience_s)
        assert stage.resumption(load).wait(FORM.patience_s) < FORM.patience_s, "not every worker takes jobs"
        marker.touch()
        hung = stage.redelivery(sick.name)
        gone = sick.wait_gone(3 * FORM.watchdog_s + FORM.patience_s)
        stage.say(f"worker {sick.pid}: its forward hangs; ended by its watchdog: {gone}")
        died = stage.redelivery(sick.name)
        longest = died.wait(FORM.patience_s)
        hung.wait(FORM.patience_s)
        stage.say(f"the {len(died.jobs)} jobs it held came back {longest:.1f} s after its end")
        outcome = load.finish(FORM.patience_s)
    record(Row("hung forward, ended by the watchdog", outcome, list(hung.seconds.values())))
    assert gone, f"the watchdog did not end the process:\n{sick.log_tail()}"
    outcome.check()
    assert died.jobs, "the worker held no job when it ended, so nothing was tried"
