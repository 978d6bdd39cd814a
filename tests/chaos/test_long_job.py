"""A job that runs ten times as long as its lease runs once: the lease is renewed."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from chaos.chaos_profile import PROFILE
from chaos.deployment import Deployment, own_worker
from chaos.jobs import slow_job
from chaos.scenario import Load, Record, Redelivery, Row
from maskscore import JobState

_LEASE_S = 1.0
_LEASES = 10


@pytest.mark.timeout(600)
def test_job_of_ten_leases(deployment: Deployment, record: Record, tmp_path: Path) -> None:
    with own_worker(deployment, tmp_path, MASKSCORE_LEASE_S=str(_LEASE_S)) as (_, client):
        slow = slow_job(deployment.s3_proxy, 1.2 * _LEASES * _LEASE_S)
        with Load(client, client, deployment.server, deployment.corpus, "long", special={0: slow}) as load:
            load.start(1)
            load.wait_accepted(1)
            outcome = load.finish(PROFILE.patience_s)
        status = client.status("long-0")
    assert status.claimed_at is not None
    assert status.finished_at is not None
    ran_s = (status.finished_at - status.claimed_at).total_seconds()
    deployment.say(f"the job ran for {ran_s:.1f} s under a lease of {_LEASE_S:g} s, {status.attempts} time(s)")
    record(Row(f"a job of {ran_s / _LEASE_S:.0f} leases", outcome))
    outcome.check()
    assert ran_s > _LEASES * _LEASE_S
    assert status.attempts == 1


@pytest.mark.skipif(PROFILE.name == "short", reason="half a minute more: in the long profile")
@pytest.mark.timeout(600)
def test_long_job_whose_worker_was_killed(deployment: Deployment, record: Record, tmp_path: Path) -> None:
    """A healthy job that takes longer than the watchdog's patience is run alone after its worker's death, and succeeds.

    Other jobs wait for the same worker meanwhile; that they do not move is no reason to end it.
    """
    watchdog_s = 3.0
    settings = {"MASKSCORE_LEASE_S": str(_LEASE_S), "MASKSCORE_WATCHDOG_S": str(watchdog_s)}
    ended = 0
    with own_worker(deployment, tmp_path, **settings) as (fleet, client):
        slow = slow_job(deployment.s3_proxy, 4 * watchdog_s)
        with Load(client, client, deployment.server, deployment.corpus, "suspect", special={0: slow}) as load:
            load.start(30)
            load.wait_accepted(30)
            while client.status("suspect-0").state is not JobState.RUNNING:
                time.sleep(0.02)
            fleet.workers[0].signal(signal.SIGKILL)
            redelivery = Redelivery(client, deployment.server, fleet.workers[0].name)
            deployment.say("SIGKILL to the only worker, which had begun a job of 12 s; 29 others wait")
            fleet.replace(fleet.workers[0]).wait()
            while not client.status("suspect-0").state.ended:
                if not fleet.workers[0].alive():
                    ended += 1
                    deployment.say("the new worker ended by itself: " + fleet.workers[0].last_words())
                    fleet.replace(fleet.workers[0])
                time.sleep(0.1)
            deployment.s3_proxy.pass_on()
            outcome = load.finish(PROFILE.patience_s)
            redelivery.poll()
    record(Row("a long job's worker SIGKILLed", outcome, list(redelivery.seconds.values())))
    outcome.check()
    assert ended == 0
