"""SIGSTOP for longer than the lease, then SIGCONT: the worker wakes up with jobs that others have taken meanwhile."""

from __future__ import annotations

import signal
import time

import pytest

from chaos.form import FORM
from chaos.scenario import Record, Row
from chaos.stage import Stage


@pytest.mark.timeout(900)
def test_frozen_worker(stage: Stage, record: Record) -> None:
    with stage.load("frozen") as load:
        load.start()
        load.wait_ended(30, FORM.patience_s)
        frozen = stage.fleet.workers[0]
        frozen.signal(signal.SIGSTOP)
        taken = stage.redelivery(frozen.name)
        stage.say(f"SIGSTOP to worker {frozen.pid}, which has {len(taken.jobs)} jobs in hand")
        slept_until = time.monotonic() + 1.5 * FORM.lease_s
        longest = taken.wait(FORM.patience_s)
        stage.say(f"its jobs were taken by others after {longest:.1f} s")
        time.sleep(max(0.0, slept_until - time.monotonic()))
        frozen.signal(signal.SIGCONT)
        back = stage.resumption(load).wait(FORM.patience_s)
        stage.say(f"SIGCONT; every worker did jobs again {back:.1f} s later")
        outcome = load.finish(FORM.patience_s)
    record(Row("SIGSTOP for 1.5 leases, SIGCONT", outcome, list(taken.seconds.values())))
    outcome.check()
    assert longest < 40.0
    assert back < FORM.patience_s
