"""S3 that fails a third of its requests, or answers slowly: a passing fault costs time and no job."""

from __future__ import annotations

import time

import pytest

from chaos.form import FORM
from chaos.scenario import Record, Row
from chaos.stage import Stage

pytestmark = pytest.mark.timeout(900)


def test_s3_fails_a_third_of_its_requests(stage: Stage, record: Record) -> None:
    with stage.load("s3-failing") as load:
        load.start()
        load.wait_ended(30, FORM.patience_s)
        asked, refused = stage.s3_proxy.asked, stage.s3_proxy.refused
        stage.s3_proxy.fail(1 / 3)
        time.sleep(FORM.s3_failing_s)
        stage.s3_proxy.pass_on()
        asked, refused = stage.s3_proxy.asked - asked, stage.s3_proxy.refused - refused
        stage.say(f"S3 answered 500 or 503 to {refused} of {asked} requests in {FORM.s3_failing_s:g} s")
        outcome = load.finish(FORM.patience_s)
    record(Row(f"S3 fails 1/3 of its requests, {FORM.s3_failing_s:g} s", outcome))
    assert refused
    outcome.check()


def test_s3_answers_slowly(stage: Stage, record: Record) -> None:
    slow_s = FORM.s3_failing_s / 2
    with stage.load("s3-slow") as load:
        load.start()
        load.wait_ended(30, FORM.patience_s)
        # An image of some 7 kB takes longer than two seconds.
        stage.s3_proxy.trickle(3000)
        before = load.ended()
        time.sleep(slow_s)
        stage.s3_proxy.pass_on()
        stage.say(f"S3 sent 3 kB/s per connection for {slow_s:g} s, in which {load.ended() - before} jobs ended")
        outcome = load.finish(FORM.patience_s)
    record(Row(f"S3 answers slowly, {slow_s:g} s", outcome))
    outcome.check()
    assert set(outcome.attempts) == {1}
