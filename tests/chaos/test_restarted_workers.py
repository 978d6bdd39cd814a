"""A rolling restart: SIGTERM to one worker after the other, each replaced first."""

from __future__ import annotations

import signal
import time

import pytest

from chaos.chaos_profile import PROFILE
from chaos.deployment import WORKERS, Deployment
from chaos.jobs import slow_job
from chaos.scenario import Record, Redelivery, Row
from maskscore import JobState
from waiting import until

# The default grace period and some seconds to load off what was imported.
_GONE_S = 60.0


@pytest.mark.timeout(900)
def test_rolling_restart(deployment: Deployment, record: Record) -> None:
    handed_back: list[Redelivery] = []
    # At most as many jobs as leave the machine room for loading; the short profile has all replacements load at once.
    with deployment.load("rolling", per_s=40) as load:
        load.start()
        load.wait_ended(30, PROFILE.patience_s)
        old_ones = list(deployment.fleet.workers)
        if PROFILE.name == "short":
            deployment.fleet.bring_to(2 * WORKERS)
        for old in old_ones:
            if PROFILE.name == "long":
                deployment.fleet.add().wait()
            old.signal(signal.SIGTERM)
            handed_back.append(deployment.redelivery(old.name))
            gone = old.wait_gone(_GONE_S)
            deployment.say(f"worker {old.pid}: SIGTERM with {len(handed_back[-1].jobs)} jobs in hand, ended: {gone}")
            assert gone, f"the worker did not end after SIGTERM:\n{old.log_tail()}"
            deployment.fleet.drop(old)
        load.wait_ended(load.ended() + 30, PROFILE.patience_s)
        outcome = load.finish(PROFILE.patience_s)
    record(Row("SIGTERM, rolling restart", outcome))
    outcome.check()
    # Nothing is repeated: what was running was finished, or handed back without costing an attempt.
    assert set(outcome.attempts) == {1}


@pytest.mark.timeout(600)
def test_second_sigterm_gives_back_what_runs(deployment: Deployment, record: Record) -> None:
    """A job that would outlast the grace period is with another worker long before its lease ends."""
    slow = slow_job(deployment.s3_proxy, 15.0)
    with deployment.load("hurry", special={0: slow}) as load:
        load.start(1)
        load.wait_accepted(1)
        while (held := deployment.observer.status(load.job_id(0))).state is not JobState.RUNNING:
            time.sleep(0.02)
        holder = next(worker for worker in deployment.fleet.workers if worker.name == held.worker)

        def draining() -> bool:
            assert holder.alive(), "the worker did not wait for the job that it had begun"
            reports = [worker.report for worker in deployment.observer.workers()]
            return any(report.name == holder.name and report.state == "draining" for report in reports)

        holder.signal(signal.SIGTERM)
        until(draining, "the worker drains")
        given_back = deployment.redelivery(holder.name)
        holder.signal(signal.SIGTERM)
        longest = given_back.wait(PROFILE.patience_s)
        gone = holder.wait_gone(_GONE_S)
        deployment.say(f"SIGTERM twice to the worker of a long job: it went on elsewhere after {longest:.1f} s")
        deployment.s3_proxy.pass_on()
        outcome = load.finish(PROFILE.patience_s)
    record(Row("SIGTERM twice during a long job", outcome, list(given_back.seconds.values())))
    assert gone
    outcome.check()
    # Not by its lease, which would have cost an attempt.
    assert set(outcome.attempts) == {1}
