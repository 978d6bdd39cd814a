"""SIGSTOP for longer than the lease, then SIGCONT: the worker wakes up with jobs that others have taken meanwhile."""

from __future__ import annotations

import signal
import time

import pytest

from chaos.chaos_profile import PROFILE
from chaos.deployment import Deployment
from chaos.scenario import Record, Row


@pytest.mark.timeout(900)
def test_frozen_worker(deployment: Deployment, record: Record) -> None:
    with deployment.load("frozen") as load:
        load.start()
        load.wait_ended(30, PROFILE.patience_s)
        frozen = deployment.fleet.workers[0]
        frozen.signal(signal.SIGSTOP)
        taken = deployment.redelivery(frozen.name)
        deployment.say(f"SIGSTOP to worker {frozen.pid}, which has {len(taken.jobs)} jobs in hand")
        slept_until = time.monotonic() + 1.5 * PROFILE.lease_s
        longest = taken.wait(PROFILE.patience_s)
        deployment.say(f"its jobs were taken by others after {longest:.1f} s")
        time.sleep(max(0.0, slept_until - time.monotonic()))
        frozen.signal(signal.SIGCONT)
        back = deployment.resumption(load).wait(PROFILE.patience_s)
        deployment.say(f"SIGCONT; every worker did jobs again {back:.1f} s later")
        outcome = load.finish(PROFILE.patience_s)
    record(Row("SIGSTOP for 1.5 leases, SIGCONT", outcome, list(taken.seconds.values())))
    outcome.check()
    assert longest < 40.0
    assert back < PROFILE.patience_s
