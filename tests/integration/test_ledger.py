"""The ledger's transitions against a real Redis, one by one; `test_ledger_model` tries them in any order."""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import redis

from maskscore.broker import queue_keys
from maskscore.devstack import LocalServices
from maskscore.errors import JobNotFound
from maskscore.ledger import (
    BatchCounts,
    BatchLedger,
    Claim,
    Ledger,
    ModelBacklog,
    Submission,
    Submitted,
    SweepResult,
    TenantLimits,
    Unclaimed,
    new_token,
)
from maskscore.schema.result import Failure, JobState
from waiting import until

PASSING = Failure(code="storage_unavailable", message="the store is away")


@pytest.fixture
def client(services: LocalServices) -> redis.Redis:
    return redis.Redis.from_url(services.redis.url)


@pytest.fixture
def namespace() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def ledger(client: redis.Redis, namespace: str) -> Ledger:
    return Ledger(client, namespace=namespace, ttl_s=60)


@pytest.fixture
def batches(client: redis.Redis, namespace: str) -> BatchLedger:
    return BatchLedger(client, namespace=namespace)


def submission(job_id: str = "a", digest: str = "d", batch: str = "batch", **fields: Any) -> Submission:
    given = {"priority": "normal", "expires_in_s": None, **fields}
    return Submission(job_id, b"document", digest, batch, **given)


def next_job(ledger: Ledger, *, alone: bool = False, lease_s: float = 60, model: str = "") -> Claim | Unclaimed:
    return ledger.claim(token=new_token(), worker="w", lease_s=lease_s, alone=alone, model=model)


def claimed(ledger: Ledger, job_id: str = "a", *, alone: bool = False, lease_s: float = 60) -> Claim:
    claim = next_job(ledger, alone=alone, lease_s=lease_s)
    assert isinstance(claim, Claim), claim
    assert claim.job_id == job_id
    return claim


def state(ledger: Ledger, job_id: str = "a") -> JobState:
    (status,) = ledger.statuses([job_id])
    assert status is not None
    return status.state


def sweep(ledger: Ledger, **given: Any) -> SweepResult:
    settings = {
        "lock_s": 60,
        "max_attempts": 3,
        "sweeper": "k",
        "limit": 100,
        **given,
    }
    return ledger.sweep(**settings)


def swept(ledger: Ledger, what: str, **given: Any) -> SweepResult:
    """Sweep until something of this kind has come about."""
    rounds: list[SweepResult] = []

    def found() -> bool:
        rounds.append(sweep(ledger, **given))
        return bool(getattr(rounds[-1], what))

    until(found)
    return rounds[-1]


def test_a_job_goes_from_waiting_through_running_to_its_result(ledger: Ledger) -> None:
    assert ledger.submit([submission()]) == [Submitted.WAITING]
    assert state(ledger) is JobState.QUEUED
    assert ledger.backlog().waiting == 1
    claim = claimed(ledger)
    assert (claim.attempt, claim.retries, claim.document) == (1, 0, b"document")
    assert claim.submitted_at <= claim.claimed_at
    assert (ledger.backlog().waiting, ledger.backlog().running) == (0, 1)
    assert ledger.finish(claim, result=b"result") is JobState.SUCCEEDED
    record = ledger.record("a")
    assert (record.status.state, record.result, record.status.worker) == (JobState.SUCCEEDED, b"result", "w")
    assert record.status.finished_at is not None
    assert record.status.batch_id == "batch"
    assert ledger.document("a") == b"document"
    backlog = ledger.backlog()
    assert (backlog.waiting, backlog.running, backlog.delayed, backlog.dead, backlog.oldest_waiting_s) == (
        0,
        0,
        0,
        0,
        0,
    )


def test_a_failure_keeps_its_code_and_sentence(ledger: Ledger) -> None:
    ledger.submit([submission()])
    failure = Failure(code="image_not_found", message="gone")
    assert ledger.finish(claimed(ledger), error=failure) is JobState.FAILED
    assert ledger.record("a").status.error == failure
    assert ledger.dead_letters() == []


def test_submitting_again_is_the_same_job(ledger: Ledger) -> None:
    assert ledger.submit([submission(), submission("b")]) == [Submitted.WAITING] * 2
    assert ledger.submit([submission()]) == [Submitted.WAITING]
    claim = claimed(ledger)
    assert ledger.submit([submission()]) == [Submitted.KNOWN]
    ledger.finish(claim, result=b"r")
    assert ledger.submit([submission()]) == [Submitted.KNOWN]
    assert ledger.record("a").result == b"r"


def test_another_document_replaces_a_job_that_has_ended_where_that_is_asked_for(ledger: Ledger) -> None:
    ledger.submit([submission()])
    other = replace(submission(digest="other", expires_in_s=60.0), document=b"other")
    # Not while it waits or runs.
    assert ledger.submit([replace(other, replaces="ended")]) == [Submitted.CONFLICT]
    claim = claimed(ledger)
    assert ledger.submit([replace(other, replaces="ended")]) == [Submitted.CONFLICT]
    ledger.finish(claim, error=Failure(code="masks_invalid", message="no masks"))
    assert ledger.submit([other]) == [Submitted.CONFLICT]
    assert ledger.submit([replace(other, replaces="failed")]) == [Submitted.WAITING]
    assert ledger.record("a").status.error is None
    claim = claimed(ledger)
    assert (claim.attempt, claim.document) == (1, b"other")
    ledger.finish(claim, result=b"result")
    assert ledger.submit([replace(submission(), replaces="failed")]) == [Submitted.CONFLICT]
    assert ledger.submit([replace(submission(), replaces="ended")]) == [Submitted.WAITING]
    record = ledger.record("a")
    assert (record.result, ledger.document("a"), record.status.batch_id) == (None, b"document", "batch")
    assert ledger.backlog().waiting == 1


def test_another_document_under_a_known_id_is_a_conflict_that_changes_nothing(ledger: Ledger) -> None:
    ledger.submit([submission()])
    assert ledger.submit([submission("b"), submission(digest="other")]) == [Submitted.WAITING, Submitted.CONFLICT]
    assert claimed(ledger).document == b"document"
    assert state(ledger, "b") is JobState.QUEUED


def test_a_full_queue_takes_nothing_new_but_knows_what_it_has(ledger: Ledger) -> None:
    some = [submission(name) for name in "abc"]
    assert ledger.submit(some, queue_limit=2) == [Submitted.WAITING, Submitted.WAITING, Submitted.FULL]
    assert ledger.submit(some, queue_limit=2) == [Submitted.WAITING, Submitted.WAITING, Submitted.FULL]
    assert ledger.statuses(["c"]) == [None]
    claimed(ledger)
    assert ledger.submit(some, queue_limit=2)[2] is Submitted.WAITING


def test_a_ticket_too_many_claims_nothing(ledger: Ledger) -> None:
    assert next_job(ledger) is Unclaimed.EMPTY
    ledger.submit([submission()])
    claim = claimed(ledger)
    assert next_job(ledger) is Unclaimed.EMPTY
    ledger.finish(claim, result=b"r")
    assert next_job(ledger) is Unclaimed.EMPTY


def test_a_claim_whose_answer_was_lost_is_answered_again(ledger: Ledger) -> None:
    ledger.submit([submission(), submission("b")])
    first = ledger.claim(token="t", worker="w", lease_s=60)
    again = ledger.claim(token="t", worker="w", lease_s=60)
    assert isinstance(first, Claim)
    assert isinstance(again, Claim)
    assert (again.job_id, again.attempt, again.token) == ("a", 1, "t")
    assert ledger.finish(again, result=b"r") is JobState.SUCCEEDED


def test_a_dead_workers_job_waits_again_as_a_suspect_and_its_old_attempt_cannot_overwrite(ledger: Ledger) -> None:
    ledger.submit([submission()])
    frozen = claimed(ledger, lease_s=0.001)
    assert swept(ledger, "lapsed").lapsed == 1
    assert state(ledger) is JobState.QUEUED
    assert next_job(ledger) is Unclaimed.SUSPECT
    # One worker waits until it is alone; the others go on.
    assert next_job(ledger) is Unclaimed.EMPTY
    current = claimed(ledger, alone=True)
    assert current.attempt == 2
    assert ledger.renew([frozen, current], lease_s=60) == ["lost", "renewed"]
    assert ledger.finish(frozen, result=b"old") is None
    assert ledger.retry(frozen, PASSING, worker="w", delay_s=1, max_retries=9, retry_for_s=60) is None
    assert not ledger.release(frozen)
    assert ledger.finish(current, result=b"new") is JobState.SUCCEEDED
    assert ledger.record("a").result == b"new"


def test_a_suspect_is_kept_for_a_worker_that_waits_to_be_alone_while_it_asks_again(ledger: Ledger) -> None:
    ledger.submit([submission()])
    claimed(ledger, lease_s=0.001)
    swept(ledger, "lapsed")
    ask = partial(ledger.claim, token="waits", worker="w")
    for _ in range(2):
        assert ask(lease_s=60) is Unclaimed.SUSPECT
        assert next_job(ledger) is Unclaimed.EMPTY
    # It was killed: after a tenth of the lease, another one is told.
    assert ask(lease_s=0.06) is Unclaimed.SUSPECT
    until(lambda: next_job(ledger) is Unclaimed.SUSPECT)
    claimed(ledger, alone=True)
    # What waits to be alone is given no ordinary job, even where another worker was alone first.
    ledger.submit([submission("b")])
    assert ask(lease_s=60) is Unclaimed.SUSPECT
    assert ask(lease_s=60, alone=True) is Unclaimed.EMPTY
    claimed(ledger, "b")


def test_a_lapsed_job_that_nobody_took_is_still_its_workers(ledger: Ledger) -> None:
    ledger.submit([submission(), submission("b")])
    renewed, finished = claimed(ledger, lease_s=0.001), claimed(ledger, "b", lease_s=0.001)
    until(lambda: sweep(ledger).held and ledger.backlog().waiting == 2)
    assert ledger.renew([renewed], lease_s=60) == ["renewed"]
    assert state(ledger) is JobState.RUNNING
    assert ledger.finish(finished, result=b"r") is JobState.SUCCEEDED
    assert ledger.finish(renewed, result=b"r") is JobState.SUCCEEDED
    assert ledger.backlog().waiting == 0


def test_a_job_that_ends_its_workers_is_poisoned_kept_and_can_be_queued_again(
    ledger: Ledger, client: redis.Redis
) -> None:
    ledger.submit([submission()])
    for attempt in (1, 2, 3):
        assert claimed(ledger, lease_s=0.001, alone=attempt > 1).attempt == attempt
        last = swept(ledger, "lapsed")
    assert (last.poisoned, ledger.backlog().waiting) == (1, 0)
    (letter,) = ledger.dead_letters()
    assert letter.status.error is not None
    assert (letter.status.state, letter.status.error.code, letter.status.attempts) == (JobState.FAILED, "poisoned", 3)
    assert [(reason.code, reason.worker) for reason in letter.reasons] == [("worker_lost", "w")] * 3
    assert ledger.dead_letter("a") == letter
    assert ledger.backlog().dead == 1
    assert ledger.requeue("a") is JobState.FAILED
    assert ledger.dead_letters() == []
    with pytest.raises(JobNotFound, match="dead list"):
        ledger.dead_letter("a")
    assert next_job(ledger) is Unclaimed.SUSPECT
    assert ledger.finish(claimed(ledger, alone=True), result=b"r") is JobState.SUCCEEDED


def test_a_dropped_dead_letter_is_forgotten_in_time(ledger: Ledger, client: redis.Redis, namespace: str) -> None:
    ledger.submit([submission()])
    ledger.finish(claimed(ledger), error=PASSING, dead_letter=True)
    assert client.pttl(f"{namespace}:job:a") == -1
    assert ledger.drop("a")
    assert not ledger.drop("a")
    assert 0 < int(client.pttl(f"{namespace}:job:a")) <= 60_000


def test_a_passing_fault_puts_the_job_aside_and_costs_no_attempt(ledger: Ledger) -> None:
    ledger.submit([submission()])
    limits: dict[str, Any] = {"worker": "w", "max_retries": 2, "retry_for_s": 60}
    for retries in (0, 1):
        claim = claimed(ledger)
        assert (claim.attempt, claim.retries) == (1, retries)
        assert ledger.retry(claim, PASSING, delay_s=0.001, **limits) == "delayed"
        assert ledger.backlog().delayed == 1
        assert next_job(ledger) is Unclaimed.EMPTY
        assert swept(ledger, "due").due == 1
    claim = claimed(ledger)
    assert ledger.retry(claim, PASSING, delay_s=0.001, **limits) == "exhausted"
    assert ledger.finish(claim, error=PASSING, dead_letter=True) is JobState.FAILED
    (letter,) = ledger.dead_letters()
    assert [reason.message for reason in letter.reasons] == ["the store is away"] * 3
    assert letter.status.retries == 2


def test_retries_are_bounded_in_time(ledger: Ledger) -> None:
    ledger.submit([submission()])
    limits: dict[str, Any] = {"worker": "w", "max_retries": 100, "retry_for_s": 5}
    assert ledger.retry(claimed(ledger), PASSING, delay_s=6, **limits) == "exhausted"


def test_a_released_job_waits_again_at_no_cost(ledger: Ledger) -> None:
    ledger.submit([submission(priority="high")])
    for _ in range(5):
        claim = claimed(ledger)
        assert claim.attempt == 1
        assert ledger.release(claim)
        assert ledger.renew([claim], lease_s=60) == ["lost"]
        assert ledger.finish(claim, result=b"late") is None
    assert state(ledger) is JobState.QUEUED


def test_renewing_moves_the_lease_on(ledger: Ledger, client: redis.Redis, namespace: str) -> None:
    ledger.submit([submission()])
    claim = claimed(ledger, lease_s=1)
    before = client.zscore(f"{namespace}:running", "a")
    assert ledger.renew([claim], lease_s=100) == ["renewed"]
    after = client.zscore(f"{namespace}:running", "a")
    assert isinstance(before, float)
    assert isinstance(after, float)
    assert after - before > 90_000


def test_a_cancelled_queued_job_never_runs(ledger: Ledger) -> None:
    ledger.submit([submission()])
    assert ledger.cancel("a") is JobState.CANCELLED
    assert next_job(ledger) is Unclaimed.EMPTY
    error = ledger.record("a").status.error
    assert error is not None
    assert error.code == "cancelled"
    assert ledger.backlog().waiting == 0


@pytest.mark.parametrize("way", ["finish", "retry", "release", "lapse"])
def test_a_running_job_is_asked_to_stop_and_ends_as_cancelled_however_its_attempt_ends(
    ledger: Ledger, way: str
) -> None:
    ledger.submit([submission()])
    claim = claimed(ledger, lease_s=0.001 if way == "lapse" else 60)
    assert ledger.cancel("a") is JobState.RUNNING
    if way == "lapse":
        assert swept(ledger, "lapsed").lapsed == 1
    else:
        assert ledger.renew([claim], lease_s=60) == ["cancelled"]
    if way == "finish":
        assert ledger.finish(claim, result=b"too late") is JobState.CANCELLED
    if way == "retry":
        assert ledger.retry(claim, PASSING, worker="w", delay_s=1, max_retries=9, retry_for_s=60) == "cancelled"
    if way == "release":
        assert not ledger.release(claim)
    assert state(ledger) is JobState.CANCELLED
    assert ledger.record("a").result is None


def test_cancelling_an_ended_job_changes_nothing(ledger: Ledger) -> None:
    ledger.submit([submission()])
    ledger.finish(claimed(ledger), result=b"r")
    assert ledger.cancel("a") is JobState.SUCCEEDED
    assert ledger.record("a").result == b"r"
    assert ledger.requeue("a") is JobState.SUCCEEDED
    assert state(ledger) is JobState.SUCCEEDED


def redis_seconds(client: redis.Redis) -> float:
    seconds, micros = client.time()
    return float(seconds + micros / 1e6)


def test_totals_that_others_wrote_are_left_out(ledger: Ledger, client: redis.Redis, namespace: str) -> None:
    key = f"{namespace}:totals"
    client.set(key, "x")
    assert ledger.totals() == {}
    client.delete(key)
    client.hset(key, mapping={"succeeded:": 3, "failed:image_not_found": "many", b"\xff": 1})
    assert ledger.totals() == {("succeeded", ""): 3, ("\ufffd", ""): 1}


@pytest.mark.parametrize("found_by", ["claim", "sweep"])
def test_a_job_that_waited_too_long_expires_unrun(ledger: Ledger, client: redis.Redis, found_by: str) -> None:
    ledger.submit([submission(expires_in_s=0.001), submission("b", expires_in_s=3600)])
    (submitted,) = ledger.statuses(["a"])
    assert submitted is not None
    # By Redis's clock, as the ledger counts.
    until(lambda: redis_seconds(client) > submitted.submitted_at.timestamp() + 0.01)
    if found_by == "sweep":
        assert sweep(ledger).expired == 1
        assert ledger.backlog().waiting == 1
    claimed(ledger, "b")
    assert state(ledger) is JobState.EXPIRED
    assert ledger.backlog().waiting == 0


def test_one_sweeper_at_a_time(ledger: Ledger) -> None:
    assert sweep(ledger, sweeper="one").held
    assert not sweep(ledger, sweeper="two").held
    assert sweep(ledger, sweeper="one", lock_s=0.001).held
    until(lambda: sweep(ledger, sweeper="two").held)


def tickets(client: redis.Redis, namespace: str, model: str = "") -> int:
    untyped: Any = client
    return sum(untyped.llen(key) for key in queue_keys(namespace, model))


def test_tickets_that_are_missing_are_sent_and_those_too_many_end(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ledger.submit([submission(name) for name in "abc"])
    ledger.submit([submission("d", model="m")])
    assert (tickets(client, namespace), tickets(client, namespace, "m")) == (3, 1)
    assert sweep(ledger).missing == 0
    client.delete(*queue_keys(namespace), *queue_keys(namespace, "m"))
    assert sweep(ledger).missing == 4
    assert (tickets(client, namespace), tickets(client, namespace, "m")) == (3, 1)
    # Fewer in a round than are missing: the sweeper goes on at once.
    client.delete(*queue_keys(namespace))
    assert sweep(ledger, limit=2).more
    assert (sweep(ledger).missing, sweep(ledger).missing) == (1, 0)
    untyped: Any = client
    untyped.lpush(queue_keys(namespace)[3], *range(5000))
    sweep(ledger)
    assert 3 <= tickets(client, namespace) < 2000
    assert claimed(ledger).job_id == "a"


def test_the_oldest_job_of_the_tenant_whose_turn_it_is_comes_next(ledger: Ledger) -> None:
    ledger.submit([submission(f"a{number}", batch="a") for number in range(6)])
    ledger.submit([submission(f"b{number}", batch="b", tenant="b's") for number in range(3)])
    ledger.submit([submission("last", priority="low", batch="c"), submission("first", priority="high", batch="a")])
    ledger.submit([replace(submission("c0"), batch_id=None)])
    order = [claim.job_id for claim in iter(lambda: next_job(ledger), Unclaimed.EMPTY) if isinstance(claim, Claim)]
    assert order == ["first", "c0", "a0", "b0", "a1", "b1", "a2", "b2", "a3", "a4", "a5", "last"]


def test_turns_go_by_weight_and_cannot_be_saved_up(ledger: Ledger, client: redis.Redis, namespace: str) -> None:
    ledger.set_tenant("heavy", TenantLimits(weight=3))
    assert ledger.tenants() == {"heavy": TenantLimits(weight=3)}
    for tenant in ("heavy", "light"):
        ledger.submit([submission(f"{tenant}{number}", tenant=tenant) for number in range(40)])
    taken = [str(getattr(next_job(ledger), "job_id", "")).rstrip("0123456789") for _ in range(40)]
    assert taken.count("heavy") == 30
    assert all(taken[start : start + 5].count("light") >= 1 for start in range(36))
    # One that comes with a job at a time gets its turn, and no more than that.
    others = []
    for number in range(10):
        ledger.submit([submission(f"new{number}", tenant="new")])
        others += [str(getattr(next_job(ledger), "job_id", "")).rstrip("0123456789") for _ in range(2)]
    assert 4 <= others.count("new") <= 10
    ledger.set_tenant("heavy", TenantLimits())
    assert ledger.tenants() == {}


@pytest.mark.parametrize("seed", range(3))
def test_no_tenant_waits_longer_than_the_weights_allow(ledger: Ledger, seed: int) -> None:
    rng = random.Random(seed)
    weights = {"one": 1.0, "half": 0.5, "three": 3.0, "small": 1.0}
    for tenant, weight in weights.items():
        ledger.set_tenant(tenant, TenantLimits(weight=weight))
    left = dict.fromkeys(weights, 0)
    passed = dict.fromkeys(weights, 0)
    number = 0
    for _ in range(300):
        for tenant, share in {"one": 0.3, "half": 0.6, "three": 0.7, "small": 0.1}.items():
            if rng.random() < share:
                number += 1
                ledger.submit([submission(f"{tenant}-{number}", tenant=tenant)])
                left[tenant] += 1
        claim = next_job(ledger)
        if not isinstance(claim, Claim):
            continue
        served = claim.job_id.split("-")[0]
        left[served] -= 1
        passed[served] = 0
        for tenant in weights:
            passed[tenant] = passed[tenant] + 1 if tenant != served and left[tenant] else 0
            # Of each of the others, as many turns as its weight is of this one's, and one that was begun before.
            others = [weight for name, weight in weights.items() if name != tenant]
            assert passed[tenant] <= sum(math.ceil(weight / weights[tenant]) + 1 for weight in others)


def test_a_tenant_has_so_many_jobs_queued_and_running_at_most(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ledger.set_tenant("t", TenantLimits(most_queued=2, most_running=1))
    some = [submission(name, tenant="t") for name in "abc"]
    assert ledger.submit(some) == [Submitted.WAITING, Submitted.WAITING, Submitted.TENANT_FULL]
    ledger.submit([submission("d", tenant="u")])
    first = claimed(ledger)
    claimed(ledger, "d")
    assert next_job(ledger) is Unclaimed.EMPTY
    # No tickets for what could not be taken.
    client.delete(*queue_keys(namespace))
    assert sweep(ledger).missing == 0
    ledger.finish(first, result=b"r")
    assert tickets(client, namespace) == 1
    claimed(ledger, "b")


def test_the_end_of_a_job_gives_a_ticket_to_its_tenants_jobs_of_other_models(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ledger.set_tenant("t", TenantLimits(most_running=1))
    ledger.submit([submission("a", tenant="t"), submission("b", tenant="t", model="m"), submission("c", tenant="u")])
    first = claimed(ledger)
    assert next_job(ledger, model="m") is Unclaimed.EMPTY
    client.delete(*queue_keys(namespace), *queue_keys(namespace, "m"))
    ledger.finish(first, result=b"r")
    # There is none of its tenant that a second ticket of the default model could be for.
    assert tickets(client, namespace) == 0
    assert tickets(client, namespace, "m") == 1
    assert isinstance(next_job(ledger, model="m"), Claim)


def test_any_number_of_tenants_at_their_limit_keep_nobody_waiting(ledger: Ledger) -> None:
    for number in range(120):
        ledger.set_tenant(f"t{number}", TenantLimits(most_running=1))
    ledger.submit([submission(f"{name}{number}", tenant=f"t{number}") for name in "ab" for number in range(120)])
    assert all(isinstance(next_job(ledger), Claim) for _ in range(120))
    assert next_job(ledger) is Unclaimed.EMPTY
    ledger.submit([submission("z", tenant="z", priority="low")])
    claimed(ledger, "z")


def test_a_suspect_and_a_renewed_job_count_among_those_that_their_tenant_has_running(ledger: Ledger) -> None:
    ledger.set_tenant("t", TenantLimits(most_running=1))
    ledger.submit([submission(name, tenant="t") for name in "ab"])
    lapsed = claimed(ledger, lease_s=0.001)
    swept(ledger, "lapsed")
    assert ledger.renew([lapsed], lease_s=0.001) == ["renewed"]
    assert next_job(ledger) is Unclaimed.EMPTY
    swept(ledger, "lapsed")
    suspect = claimed(ledger, alone=True)
    assert next_job(ledger) is Unclaimed.EMPTY
    ledger.finish(suspect, result=b"r")
    claimed(ledger, "b")


def test_a_job_that_is_gone_does_not_keep_its_tenants_others_waiting(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ledger.set_tenant("t", TenantLimits(most_running=1))
    ledger.submit([submission(name, tenant="t") for name in "abc"])
    claimed(ledger)
    client.set(f"{namespace}:job:a", "somebody else's")
    # None is left with which a worker could find out.
    client.delete(*queue_keys(namespace))
    assert sweep(ledger).missing == 1
    claimed(ledger, "b")


def test_a_tenant_whose_bucket_is_empty_waits_until_it_is_filled_and_keeps_nobody_waiting(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ledger.set_tenant("t", TenantLimits(masks_per_second=0.001))
    ledger.submit([submission(f"t{number}", tenant="t", masks=10) for number in range(3)])
    # A job takes more than there is, or it would never be run.
    claimed(ledger, "t0", lease_s=1e6)
    ledger.submit([submission("u0", tenant="u"), submission("t3", tenant="t", priority="high")])
    claimed(ledger, "u0", lease_s=1e6)
    client.delete(*queue_keys(namespace))
    assert next_job(ledger) is Unclaimed.EMPTY
    # No tickets for what could not be taken, and no other claim would find anything.
    assert sweep(ledger).missing == 0
    assert (ledger.backlog().waiting, tickets(client, namespace)) == (3, 0)
    client.hincrby(f"{namespace}:clock", "ahead", 3_600_000)
    assert next_job(ledger) is Unclaimed.EMPTY
    client.hincrby(f"{namespace}:clock", "ahead", 3 * 3_600_000)
    sweep(ledger)
    assert tickets(client, namespace) >= 1
    claimed(ledger, "t3")
    assert next_job(ledger) is Unclaimed.EMPTY


def test_a_bucket_is_no_fuller_than_two_seconds_after_a_leap_of_the_clock(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ledger.set_tenant("t", TenantLimits(masks_per_second=0.5))
    ledger.submit([submission(f"t{number}", tenant="t") for number in range(9)])
    claimed(ledger, "t0", lease_s=1e9)
    client.hincrby(f"{namespace}:clock", "ahead", 1000 * 3_600_000)
    assert [getattr(next_job(ledger), "job_id", "") for _ in range(3)] == ["t1", "t2", ""]


def test_each_claim_of_a_tenant_with_a_bucket_makes_good_the_ticket_of_the_next(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ledger.set_tenant("t", TenantLimits(masks_per_second=1e6))
    ledger.submit([submission(f"t{number}", tenant="t") for number in range(5)])
    client.delete(*queue_keys(namespace))
    assert sweep(ledger).missing == 1
    for left in (1, 1, 1, 1, 0):
        client.delete(*queue_keys(namespace))
        assert isinstance(next_job(ledger), Claim)
        assert tickets(client, namespace) == left


def test_a_bucket_is_corrected_by_the_masks_that_a_job_had(ledger: Ledger) -> None:
    ledger.set_tenant("t", TenantLimits(masks_per_second=10))
    ledger.submit([submission(name, tenant="t") for name in "abc"])
    first = claimed(ledger)
    (state,) = ledger.tenant_states().tenants
    assert (state.name, state.waiting, state.running, state.own, state.empty_for_s) == ("t", 2, 1, True, 0)
    ledger.finish(first, result=b"r", masks=1_000_000)
    (state,) = ledger.tenant_states().tenants
    assert 90_000 < state.empty_for_s <= 100_000
    assert next_job(ledger) is Unclaimed.EMPTY
    # Whoever gives it other limits fills it.
    ledger.set_tenant("t", TenantLimits(masks_per_second=11))
    claimed(ledger, "b")


def test_an_attempt_that_is_given_back_takes_nothing_from_the_bucket_a_second_time(ledger: Ledger) -> None:
    ledger.set_tenant("t", TenantLimits(masks_per_second=1))
    ledger.submit([submission("a", tenant="t", masks=2), submission("b", tenant="t", masks=2)])
    assert ledger.release(claimed(ledger))
    claimed(ledger)
    claimed(ledger, "b")


def test_tenants_without_limits_of_their_own_have_the_default_ones(client: redis.Redis, namespace: str) -> None:
    limits = TenantLimits(most_queued=2, most_running=1)
    ledger = Ledger(client, namespace=namespace, ttl_s=60, limits=limits)
    ledger.set_tenant("own", TenantLimits(most_queued=1))
    some = [submission(f"{tenant}{number}", tenant=tenant) for tenant in ("own", "t") for number in range(3)]
    full = Submitted.TENANT_FULL
    assert ledger.submit(some) == [Submitted.WAITING, full, full, Submitted.WAITING, Submitted.WAITING, full]
    assert {claimed(ledger, name).job_id for name in ("own0", "t0")} == {"own0", "t0"}
    assert next_job(ledger) is Unclaimed.EMPTY
    client.delete(*queue_keys(namespace))
    assert sweep(ledger).missing == 0
    states = {state.name: state for state in ledger.tenant_states().tenants}
    assert states["own"].limits == ledger.tenant_limits("own") == TenantLimits(most_queued=1, most_running=1)
    assert (states["t"].limits, states["t"].own, states["t"].waiting) == (limits, False, 1)


def test_a_limit_counts_what_ran_before_it_was_set(ledger: Ledger) -> None:
    ledger.submit([submission(name, tenant="t") for name in "abc"])
    first = claimed(ledger)
    ledger.set_tenant("t", TenantLimits(most_running=1))
    assert next_job(ledger) is Unclaimed.EMPTY
    ledger.finish(first, result=b"r")
    claimed(ledger, "b")


@pytest.mark.parametrize(
    "text", ["x", '{"weight": "x"}', '{"weight": 0}', '{"masks_per_second": 0}', '{"most_running": null}']
)
def test_limits_that_the_ledger_did_not_write_are_removed_and_reported(
    ledger: Ledger, client: redis.Redis, namespace: str, text: str
) -> None:
    client.hset(f"{namespace}:tenants", "t", text)
    ledger.submit([submission(tenant="t")])
    claimed(ledger)
    (stray,) = sweep(ledger).strays
    assert stray.job_id == "t"
    assert text in str(stray)
    assert ledger.tenants() == {}


def test_models_have_jobs_of_their_own(ledger: Ledger) -> None:
    ledger.submit([submission("a", model="m"), submission("b")])
    assert ledger.backlog().waiting == 2
    claim = next_job(ledger, model="m")
    assert isinstance(claim, Claim)
    assert claim.job_id == "a"
    assert next_job(ledger, model="m") is Unclaimed.EMPTY
    claimed(ledger, "b")


def test_a_job_stays_its_models_through_retries_lost_workers_and_dead_letters(ledger: Ledger) -> None:
    ledger.submit([submission(model="m")])
    for give_back in ("retry", "release", "lapse", "poisoned"):
        assert next_job(ledger) is Unclaimed.EMPTY
        claim = next_job(ledger, model="m", lease_s=0.001, alone=give_back == "poisoned")
        assert isinstance(claim, Claim)
        if give_back == "retry":
            assert ledger.retry(claim, PASSING, worker="w", delay_s=0, max_retries=9, retry_for_s=60) == "delayed"
            swept(ledger, "due")
        elif give_back == "release":
            assert ledger.release(claim)
        else:
            swept(ledger, "lapsed", max_attempts=2)
    assert [letter.status.job_id for letter in ledger.dead_letters()] == ["a"]
    assert ledger.requeue("a") is JobState.FAILED
    assert next_job(ledger, alone=True) is Unclaimed.EMPTY
    assert isinstance(next_job(ledger, model="m", alone=True), Claim)


def test_the_backlog_counts_by_model_also_after_somebody_has_changed_the_counts(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    untyped: Any = client
    ledger.submit([submission(name, model="m") for name in "abc"] + [submission(name) for name in "de"])
    claims = [next_job(ledger, model=model) for model in ("m", "m", "")]
    assert isinstance(claims[0], Claim)
    ledger.retry(claims[0], PASSING, worker="w", delay_s=60, max_retries=9, retry_for_s=60)
    expected = {"default": ModelBacklog(1, 1, 0), "m": ModelBacklog(1, 1, 1)}
    # The jobs of each wait since then, and those of the other make them no older.
    ledger.submit([submission("old", model="n")])
    untyped.zadd(f"{namespace}:queue:normal:n:batch", {"old": 1e6})
    ages = {name: jobs.oldest_waiting_s for name, jobs in ledger.backlog().models.items()}
    assert max(ages["default"], ages["m"]) < 600 < ages["n"] == pytest.approx(ledger.backlog().oldest_waiting_s, abs=60)
    ledger.cancel("old")
    assert ledger.backlog().models == expected
    untyped.hset(f"{namespace}:going", mapping={"running:m": 7, "delayed:other": 2, "x": "y"})
    sweep(ledger)
    assert ledger.backlog().models == expected


def test_a_model_that_nobody_serves_leaves_nothing_when_its_jobs_are_cancelled(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ledger.submit([submission(name, model="no-such") for name in "abc"])
    assert ledger.cancel_many("abc") == [JobState.CANCELLED] * 3
    sweep(ledger)
    untyped: Any = client
    assert not [key for key in untyped.keys(f"{namespace}:*") if b"no-such" in key]
    for name in ("depth", "going", "clock"):
        assert b"no-such" not in b"".join(untyped.hkeys(f"{namespace}:{name}"))


def test_a_job_that_cannot_be_cancelled_does_not_keep_the_others_from_it(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ids = [str(number) for number in range(150)]
    ledger.submit([submission("bad", batch="bad"), *(submission(name) for name in ids)])
    untyped: Any = client
    # A stream that takes no more events.
    untyped.xadd(f"{namespace}:batch:events:bad", {"x": "y"}, id=f"{2**64 - 1}-{2**64 - 1}")
    with pytest.raises(redis.ResponseError, match="ID"):
        ledger.cancel_many(["bad", *ids])
    assert [status and status.state for status in ledger.statuses(ids)] == [JobState.CANCELLED] * 150
    assert ledger.cancel_many([*ids, "unknown"]) == [*[JobState.CANCELLED] * 150, None]


def test_tenants_take_turns_within_each_model(ledger: Ledger) -> None:
    ledger.submit([submission(f"{model}-a{number}", tenant="a", model=model) for model in "mn" for number in range(3)])
    ledger.submit([submission(f"{model}-b0", tenant="b", model=model) for model in "mn"])
    taken = [next_job(ledger, model=model) for model in "mmmn"]
    ids = [claim.job_id for claim in taken if isinstance(claim, Claim)]
    assert (sorted(ids[:2]), ids[2]) == (["m-a0", "m-b0"], "m-a1")
    # What a tenant has had of the other model does not count.
    second = next_job(ledger, model="n")
    assert isinstance(second, Claim)
    assert sorted([ids[3], second.job_id]) == ["n-a0", "n-b0"]


def test_another_document_may_ask_for_another_model(ledger: Ledger) -> None:
    for model, others in (("m", "n"), ("n", ""), ("", "m")):
        ledger.submit([submission(digest=f"digest of {model}", model=model, replaces="ended")])
        assert next_job(ledger, model=others) is Unclaimed.EMPTY
        claim = next_job(ledger, model=model)
        assert isinstance(claim, Claim)
        assert ledger.finish(claim, result=b"r") is JobState.SUCCEEDED


def release_0(client: redis.Redis, namespace: str, job_id: str, lane: str, **fields: Any) -> None:
    """A job that release 0 has queued."""
    untyped: Any = client
    record = {"state": "waiting", "digest": "d", "document": b"document", "lane": lane, "submitted_at": 1, **fields}
    untyped.hset(f"{namespace}:job:{job_id}", mapping={"attempts": 0, "retries": 0, **record})
    seconds, micros = untyped.time()
    untyped.zadd(f"{namespace}:waiting:{lane}", {job_id: seconds * 1000 + micros // 1000})


@pytest.mark.parametrize("by", ["claim", "sweep"])
def test_jobs_of_release_0_are_taken_over(ledger: Ledger, client: redis.Redis, namespace: str, by: str) -> None:
    release_0(client, namespace, "a", "normal.again", batches="batch")
    release_0(client, namespace, "b", "normal")
    release_0(client, namespace, "c", "high")
    # Its jobs ask for no model: they are the default one's.
    assert next_job(ledger, model="m") is Unclaimed.EMPTY
    # Its sweeper lives.
    client.set(f"{namespace}:keeper", "old", px=60_000)
    assert ledger.backlog().waiting == 3
    if by == "sweep":
        assert sweep(ledger).missing == 3
        assert client.get(f"{namespace}:keeper") != b"old"
    assert claimed(ledger, "c").document == b"document"
    assert {getattr(next_job(ledger), "job_id", "") for _ in range(2)} == {"a", "b"}
    assert ledger.backlog().waiting == 0
    assert ledger.document("a") == b"document"
    # As release 0 compares them.
    assert ledger.submit([submission()]) == [Submitted.KNOWN]


def test_redis_clock_does_not_decide_the_order(ledger: Ledger, client: redis.Redis, namespace: str) -> None:
    ledger.submit([submission()])
    for name in "bcd":
        put_back(client, namespace, hours=1)
        ledger.submit([submission(name)])
    for name in "abcd":
        claimed(ledger, name)


def test_a_batch_counts_its_jobs_and_tells_of_each_end_once(ledger: Ledger, batches: BatchLedger) -> None:
    ledger.submit([submission(name) for name in "abcd"])
    assert batches.counts("batch") == BatchCounts(queued=4)
    assert batches.job_ids("batch", start=1, stop=3) == ["b", "c"]
    ledger.finish(claimed(ledger), result=b"r")
    ledger.cancel("c")
    claimed(ledger, "b")
    assert batches.counts("batch") == BatchCounts(queued=1, running=1, succeeded=1, cancelled=1)
    events = batches.events("batch", after="0", limit=10, block_s=0)
    assert [(event.job_id, event.state) for event in events] == [("a", JobState.SUCCEEDED), ("c", JobState.CANCELLED)]
    assert batches.events("batch", after=events[-1].event_id, limit=10, block_s=0) == []
    assert batches.counts("unknown") is None
    batches.set_position("batch", "reader", events[0].event_id)
    assert (batches.position("batch", "reader"), batches.position("batch", "other")) == (events[0].event_id, "0")
    assert batches.counts("batch") == BatchCounts(queued=1, running=1, succeeded=1, cancelled=1)


def test_a_job_joins_a_second_batch_with_what_became_of_it(ledger: Ledger, batches: BatchLedger) -> None:
    ledger.submit([submission("a", batch="x:1"), submission("b", batch="x:1")])
    ledger.finish(claimed(ledger), result=b"r")
    for _ in range(2):
        ledger.submit([submission("a", batch="x"), submission("b", batch="x")])
    assert batches.counts("x") == BatchCounts(queued=1, succeeded=1)
    assert batches.job_ids("x", start=0, stop=9) == ["a", "b"]
    ledger.finish(claimed(ledger, "b"), result=b"r")
    for batch in ("x", "x:1"):
        assert batches.counts(batch) == BatchCounts(succeeded=2)
        assert [e.job_id for e in batches.events(batch, after="0", limit=9, block_s=0)] == ["a", "b"]


def test_a_batch_is_forgotten_in_time_but_not_while_its_jobs_go_on(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    keys = [f"{namespace}:batch:{name}:batch" for name in ("counts", "jobs", "events")]
    ledger.submit([submission("a"), submission("b")])
    ledger.finish(claimed(ledger), result=b"r")
    assert [client.pttl(key) for key in keys] == [-1] * 3
    ledger.finish(claimed(ledger, "b"), error=PASSING)
    assert all(0 < int(client.pttl(key)) <= 60_000 for key in keys)
    ledger.requeue("b")
    assert [client.pttl(key) for key in keys] == [-1] * 3


def test_what_is_kept_with_a_batch_does_not_outlive_it(
    batches: BatchLedger, client: redis.Redis, namespace: str
) -> None:
    batches.set_position("gone", "reader", "1-0")
    batches.set_note("gone", "name", "text")
    assert list(client.scan_iter(f"{namespace}:batch:*")) == []
    assert (batches.position("gone", "reader"), batches.note("gone", "name")) == ("0", None)


@pytest.mark.parametrize("batch", ["new", "batch"])
def test_an_ended_job_that_is_submitted_again_is_kept_as_long_as_a_new_one(
    ledger: Ledger, client: redis.Redis, namespace: str, batch: str
) -> None:
    ledger.submit([submission()])
    ledger.finish(claimed(ledger), result=b"r")
    for key in ("job:a", "batch:counts:batch", "batch:jobs:batch", "batch:events:batch"):
        client.pexpire(f"{namespace}:{key}", 5_000)
    assert ledger.submit([submission(batch=batch)]) == [Submitted.KNOWN]
    for key in ("job:a", f"batch:counts:{batch}", f"batch:jobs:{batch}", f"batch:events:{batch}"):
        assert int(client.pttl(f"{namespace}:{key}")) > 50_000


def test_a_dead_letter_that_is_submitted_again_keeps_having_no_time_to_live(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ledger.submit([submission()])
    ledger.finish(claimed(ledger), error=PASSING, dead_letter=True)
    ledger.submit([submission(batch="new")])
    assert client.pttl(f"{namespace}:job:a") == -1


def test_a_job_is_in_so_many_batches_at_most(ledger: Ledger, batches: BatchLedger) -> None:
    answers = ledger.submit([submission(batch=f"b{number}") for number in range(1001)])
    assert answers == [Submitted.WAITING] * 1000 + [Submitted.IN_TOO_MANY_BATCHES]
    assert batches.counts("b1000") is None
    # It is still the same job to those that it is in.
    assert ledger.submit([submission(batch="b7")]) == [Submitted.WAITING]


def leave_an_id(place: str) -> Callable[[redis.Redis, str], Any]:
    return lambda client, name: client.zadd(f"{name}:{place}", {b"nobody\xff": 1})


def leave_another_type(key: str) -> Callable[[redis.Redis, str], Any]:
    return lambda client, name: client.set(f"{name}:{key}", "x")


def leave_a_record(place: str, fields: Any) -> Callable[[redis.Redis, str], Any]:
    def leave(client: redis.Redis, name: str) -> None:
        client.zadd(f"{name}:{place}", {"b": 1})
        client.hset(f"{name}:job:b", mapping=fields) if fields else client.set(f"{name}:job:b", "x")

    return leave


# What somebody else left in the ledger's keys.
STRAYS: dict[str, Callable[[redis.Redis, str], Any]] = {
    **{
        f"an id without a record in {place}": leave_an_id(place)
        for place in (
            *("queue:normal::batch", "suspects:", "running", "delayed", "expiring", "dead"),
            # Of release 0.
            "waiting:normal",
        )
    },
    **{
        f"a key of another type for {key}": leave_another_type(key)
        for key in (
            *("queue:normal::batch", "turns:high:", "turns:normal:", "suspects:", "depth", "tenants"),
            *("running", "delayed", "expiring", "dead", "clock", "stray", "waiting:high"),
        )
    },
    "a lock of another type": lambda client, name: client.rpush(f"{name}:keeper", "x"),
    "a record of another type": leave_a_record("queue:normal::batch", None),
    "a record without its counts": leave_a_record("running", {"state": "running", "lane": "normal"}),
    "a batch of another type": leave_another_type("batch:counts:batch"),
}


@pytest.mark.parametrize("stray", STRAYS)
def test_what_the_ledger_did_not_write_is_put_aside_and_stops_nothing(
    ledger: Ledger, client: redis.Redis, namespace: str, stray: str
) -> None:
    jobs = [submission("late"), submission("due"), submission(), submission("more")]
    ledger.submit(jobs)
    claimed(ledger, "late", lease_s=0.001)
    ledger.retry(claimed(ledger, "due"), PASSING, worker="w", delay_s=0.001, max_retries=3, retry_for_s=60)
    STRAYS[stray](client, namespace)
    told: list[str] = []
    ran: set[str] = set()

    def all_ran() -> bool:
        found = sweep(ledger)
        told.extend(map(str, found.strays))
        # Where a whole set was another's, the jobs in it come back when they are submitted again.
        ledger.submit(jobs)
        claim = next_job(ledger)
        if claim is Unclaimed.SUSPECT:
            claim = next_job(ledger, alone=True)
        if isinstance(claim, Claim):
            ledger.finish(claim, result=b"r")
            ran.add(claim.job_id)
        return ran >= {"a", "late", "due", "more"}

    until(all_ran)
    # One of the suspects may be reserved by now.
    assert next_job(ledger, alone=True) is Unclaimed.EMPTY
    backlog = ledger.backlog()
    assert (backlog.waiting, backlog.running, backlog.delayed, backlog.dead) == (0, 0, 0, 0)
    # A record of another type is told of as a key and as an entry.
    told.extend(map(str, sweep(ledger).strays))
    assert 1 <= len(told) <= 2, told
    assert all(namespace in text for text in told)
    assert ledger.statuses(["b", "a"])[0] is None


def test_an_entry_in_the_wrong_place_goes_where_its_record_says(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ledger.submit([submission(), submission("b")])
    held = claimed(ledger)
    ledger.finish(claimed(ledger, "b"), result=b"r")
    for place in ("delayed", "waiting:normal", "queue:normal::batch"):
        client.zadd(f"{namespace}:{place}", {"a": 1, "b": 1})
    client.zadd(f"{namespace}:turns:normal:", {"batch": 1})
    client.zadd(f"{namespace}:running", {"b": 1})
    found = swept(ledger, "strays")
    assert len(found.strays) == 5
    assert next_job(ledger) is Unclaimed.EMPTY
    assert len(sweep(ledger).strays) == 2
    assert ledger.backlog().waiting == 0
    assert (state(ledger), state(ledger, "b")) == (JobState.RUNNING, JobState.SUCCEEDED)
    assert ledger.finish(held, result=b"r") is JobState.SUCCEEDED


def test_a_job_whose_place_was_lost_comes_back_when_it_is_submitted_again(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ledger.submit([submission(), submission("b")])
    client.delete(f"{namespace}:queue:normal::batch")
    assert next_job(ledger) is Unclaimed.EMPTY
    assert ledger.backlog().waiting == 0
    assert ledger.submit([submission("b")]) == [Submitted.WAITING]
    claimed(ledger, "b")


@pytest.mark.parametrize("place", ["suspects:", "turns:normal:"])
def test_a_suspect_and_a_tenants_turn_come_back_when_the_job_is_submitted_again(
    ledger: Ledger, client: redis.Redis, namespace: str, place: str
) -> None:
    ledger.submit([submission()])
    suspicious = place == "suspects:"
    if suspicious:
        claimed(ledger, lease_s=0.001)
        swept(ledger, "lapsed")
    client.delete(f"{namespace}:{place}")
    assert next_job(ledger) is Unclaimed.EMPTY
    ledger.submit([submission()])
    if suspicious:
        assert next_job(ledger) is Unclaimed.SUSPECT
    claimed(ledger, alone=suspicious)


def test_a_count_that_somebody_else_has_written_stops_nothing(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    ledger.submit([submission(), submission("b")])
    client.hset(f"{namespace}:depth", "", "x")
    assert ledger.backlog().waiting == 0
    claimed(ledger)
    assert ledger.submit([submission("c")], queue_limit=9) == [Submitted.WAITING]
    sweep(ledger)
    assert ledger.backlog().waiting == 2
    claimed(ledger, "b")


def put_back(client: redis.Redis, namespace: str, *, hours: int) -> None:
    """Let all that the ledger wrote be so much later than Redis's clock, as when that is put back."""
    later = hours * 3_600_000
    untyped: Any = client
    client.hincrby(f"{namespace}:clock", "last", later)
    client.hincrby(f"{namespace}:clock", "sequence", later * 1000)
    for key in client.scan_iter(f"{namespace}:*"):
        if untyped.type(key) == b"zset":
            # The numbers of waiting jobs are microseconds; turns are no time.
            step = 0 if b":turns:" in key else later * 1000 if b":queue:" in key else later
            client.zadd(key, {name: score + step for name, score in untyped.zrange(key, 0, -1, withscores=True)})
        elif b":job:" in key:
            for name in ("expires_at", "first_fault_at"):
                if client.hexists(key, name):
                    client.hincrby(key, name, later)


def test_what_is_due_comes_back_although_redis_clock_was_put_back(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    def all_queued(expected: list[str]) -> bool:
        sweep(ledger)
        return all(state(ledger, name) is JobState.QUEUED for name in expected) and ledger.backlog().delayed == 0

    for number in range(2):
        late, due, lost, old = (f"{name}{number}" for name in ("late", "due", "lost", "old"))
        ledger.submit([submission(late), submission(due), submission(lost), submission(old, expires_in_s=0.05)])
        claimed(ledger, late, lease_s=0.05)
        ledger.retry(claimed(ledger, due), PASSING, worker="w", delay_s=0.05, max_retries=3, retry_for_s=60)
        put_back(client, namespace, hours=1)
        until(partial(all_queued, [late, due, lost]))
        until(lambda old=old: bool(sweep(ledger)) and state(ledger, old) is JobState.EXPIRED)  # type: ignore[misc]
        assert next_job(ledger) is Unclaimed.SUSPECT
        claimed(ledger, late, alone=True)
        claimed(ledger, due)
        claimed(ledger, lost)
        assert ledger.backlog().oldest_waiting_s < 60
        # What people are shown is Redis's own time.
        untyped: Any = client
        seconds, _ = untyped.time()
        assert abs(ledger.record(late).status.submitted_at.timestamp() - seconds) < 60


def test_the_lock_of_a_sweeper_that_is_gone_lapses_although_redis_clock_was_put_back(
    ledger: Ledger, client: redis.Redis, namespace: str
) -> None:
    assert sweep(ledger, sweeper="gone", lock_s=0.02).held
    # As Redis counts a time to live when its clock is put back by an hour.
    client.pexpire(f"{namespace}:keeper", 3_600_000)
    until(lambda: sweep(ledger, sweeper="two").held)


def test_unknown_jobs_are_said_to_be_unknown(ledger: Ledger) -> None:
    assert ledger.statuses(["nobody"]) == [None]
    assert ledger.records(["nobody"]) == [None]
    asks: list[Callable[[str], Any]] = [ledger.record, ledger.cancel, ledger.document, ledger.requeue]
    for ask in asks:
        with pytest.raises(JobNotFound, match="nobody"):
            ask("nobody")


def test_only_ended_jobs_are_forgotten(ledger: Ledger, client: redis.Redis, namespace: str) -> None:
    ledger.submit([submission(), submission("b")])
    ledger.finish(claimed(ledger), result=b"r")
    assert 0 < int(client.pttl(f"{namespace}:job:a")) <= 60_000
    assert client.pttl(f"{namespace}:job:b") == -1


def test_namespaces_do_not_see_each_other(ledger: Ledger, client: redis.Redis) -> None:
    other = Ledger(client, namespace=f"other-{uuid.uuid4().hex[:8]}", ttl_s=60)
    ledger.submit([submission()])
    assert other.statuses(["a"]) == [None]
