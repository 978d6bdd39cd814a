"""A forward that does not return: the watchdog ends the process, its jobs come back by their leases.

The hang is injected from outside: before it becomes a worker, the process registers PyTorch's hook for all modules,
which blocks the forward while a file exists (``hanging_forward.py``).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.chaos_profile import PROFILE
from chaos.deployment import Deployment
from chaos.scenario import Record, Row


@pytest.mark.timeout(900)
def test_hung_forward(deployment: Deployment, record: Record, tmp_path: Path) -> None:
    marker = tmp_path / "hang"
    sick = deployment.fleet.add(Path(__file__).with_name("hanging_forward.py"), CHAOS_HANG_WHILE=str(marker))
    sick.wait()
    with deployment.load("hung") as load:
        load.start()
        load.wait_ended(30, PROFILE.patience_s)
        assert deployment.resumption(load).wait(PROFILE.patience_s) < PROFILE.patience_s, "not every worker takes jobs"
        marker.touch()
        hung = deployment.redelivery(sick.name)
        gone = sick.wait_gone(3 * PROFILE.watchdog_s + PROFILE.patience_s)
        deployment.say(f"worker {sick.pid}: its forward hangs; ended by its watchdog: {gone}")
        died = deployment.redelivery(sick.name)
        longest = died.wait(PROFILE.patience_s)
        hung.wait(PROFILE.patience_s)
        deployment.say(f"the {len(died.jobs)} jobs it held came back {longest:.1f} s after its end")
        outcome = load.finish(PROFILE.patience_s)
    record(Row("hung forward, ended by the watchdog", outcome, list(hung.seconds.values())))
    assert gone, f"the watchdog did not end the process:\n{sick.log_tail()}"
    outcome.check()
    assert died.jobs, "the worker held no job when it ended, so nothing was tried"
