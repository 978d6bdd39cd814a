"""S3 that fails a third of its requests, or answers slowly: a transient fault costs time and no job."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from chaos.chaos_profile import PROFILE
from chaos.deployment import Deployment, own_worker
from chaos.jobs import slow_job
from chaos.scenario import Load, Record, Row
from maskscore import JobState

pytestmark = pytest.mark.timeout(900)


def test_s3_fails_a_third_of_its_requests(deployment: Deployment, record: Record) -> None:
    with deployment.load("s3-failing") as load:
        load.start()
        load.wait_ended(30, PROFILE.patience_s)
        asked, refused = deployment.s3_proxy.asked, deployment.s3_proxy.refused
        deployment.s3_proxy.fail(1 / 3)
        time.sleep(PROFILE.s3_failing_s)
        deployment.s3_proxy.pass_on()
        asked, refused = deployment.s3_proxy.asked - asked, deployment.s3_proxy.refused - refused
        deployment.say(f"S3 answered 500 or 503 to {refused} of {asked} requests in {PROFILE.s3_failing_s:g} s")
        outcome = load.finish(PROFILE.patience_s)
    record(Row(f"S3 fails 1/3 of its requests, {PROFILE.s3_failing_s:g} s", outcome))
    assert refused
    outcome.check()


def test_s3_answers_slowly(deployment: Deployment, record: Record) -> None:
    slow_s = PROFILE.s3_failing_s / 2
    with deployment.load("s3-slow") as load:
        load.start()
        load.wait_ended(30, PROFILE.patience_s)
        # An image of some 7 kB takes longer than two seconds.
        deployment.s3_proxy.trickle(3000)
        before = load.ended()
        time.sleep(slow_s)
        deployment.s3_proxy.pass_on()
        deployment.say(f"S3 sent 3 kB/s per connection for {slow_s:g} s, in which {load.ended() - before} jobs ended")
        outcome = load.finish(PROFILE.patience_s)
    record(Row(f"S3 answers slowly, {slow_s:g} s", outcome))
    outcome.check()
    assert set(outcome.attempts) == {1}


def test_s3_sends_hardly_anything(deployment: Deployment, record: Record, tmp_path: Path) -> None:
    """No job hangs for ever on a store that sends a byte now and then; one that is cancelled meanwhile stops soon."""
    timeout_s = 3.0
    with own_worker(deployment, tmp_path, MASKSCORE_JOB_TIMEOUT_S=str(timeout_s)) as (_, client):
        slow = slow_job(deployment.s3_proxy, 3600)
        with Load(client, client, deployment.server, deployment.corpus, "trickle", special={0: slow, 1: slow}) as load:
            load.start(20)
            load.wait_accepted(20)
            while client.status("trickle-1").state is not JobState.RUNNING:
                time.sleep(0.02)
            client.cancel("trickle-1")
            outcome = load.finish(PROFILE.patience_s)
        deployment.s3_proxy.pass_on()
        overdue, cancelled = client.status("trickle-0"), client.status("trickle-1")
    assert overdue.finished_at is not None
    assert overdue.claimed_at is not None
    assert cancelled.state is JobState.CANCELLED
    ran_s = (overdue.finished_at - overdue.claimed_at).total_seconds()
    deployment.say(
        f"the job that S3 starved failed after {ran_s:.1f} s; 18 others went on beside it, one was cancelled"
    )
    record(Row("S3 sends a byte now and then", outcome))
    outcome.check(failed={"job_timeout": 1, "cancelled": 1})
