"""SIGKILL, again and again, at random moments, under load."""

from __future__ import annotations

import random
import signal
import time

import pytest

from chaos.chaos_profile import PROFILE
from chaos.deployment import WORKERS, Deployment
from chaos.scenario import Record, Redelivery, Row

# The promise with the default lease of 30 s; a sweeper's round and a busy machine come on top of the lease.
_PROMISED_S = 40.0


@pytest.mark.timeout(3600)
def test_killed_workers(deployment: Deployment, record: Record) -> None:
    chance = random.Random(20_240)
    redeliveries: list[Redelivery] = []
    with deployment.load("kill") as load:
        load.start()
        for number in range(PROFILE.kills):
            while len(deployment.fleet.ready()) < WORKERS - 1:
                for earlier in redeliveries:
                    earlier.poll()
                time.sleep(0.05)
            load.wait_accepted((number + 1) * PROFILE.jobs // PROFILE.kills)
            time.sleep(chance.uniform(0.0, 1.0))
            victim = chance.choice(deployment.fleet.ready())
            victim.signal(signal.SIGKILL)
            redeliveries.append(deployment.redelivery(victim.name))
            deployment.fleet.replace(victim)
            deployment.say(
                f"kill {number + 1}: worker {victim.pid}, which had {len(redeliveries[-1].jobs)} jobs in hand"
            )
        for number, redelivery in enumerate(redeliveries, 1):
            longest = redelivery.wait(PROFILE.patience_s)
            deployment.say(f"kill {number}: its {len(redelivery.jobs)} jobs were taken again after {longest:.1f} s")
        outcome = load.finish(PROFILE.patience_s)
    taken = [max(redelivery.seconds.values()) for redelivery in redeliveries if redelivery.seconds]
    record(Row(f"SIGKILL of a worker in 3, {PROFILE.kills} times", outcome, taken))
    outcome.check()
    assert taken, "no worker had a job in hand when it was killed"
    assert max(taken) < _PROMISED_S
