"""A shard in the ledger: its cursor, what a lost worker costs it, and the image that ends workers."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial

import pytest
import redis

from maskscore.devstack import LocalServices
from maskscore.ledger import Claim, Ledger, ShardProgress, Submission, Submitted, TenantLimits, Unclaimed, new_token
from maskscore.schema import Failure, JobState, Priority

ATTEMPTS = 3


@pytest.fixture
def ledger(services: LocalServices) -> Ledger:
    client = redis.Redis.from_url(services.redis.url)
    made = Ledger(client, namespace=f"shards-{uuid.uuid4().hex[:8]}", ttl_s=60)
    assert made.submit([shard()]) == [Submitted.WAITING]
    return made


def shard(digest: str = "d", **fields: str) -> Submission:
    return Submission("a", b"document", digest, "batch", "normal", None, **fields)  # type: ignore[arg-type]


def claimed(ledger: Ledger, *, alone: bool = False, lease_s: float = 60) -> Claim:
    claim = ledger.claim(token=new_token(), worker="w", lease_s=lease_s, alone=alone)
    assert isinstance(claim, Claim), claim
    return claim


def commit(ledger: Ledger, claim: Claim, parts: int, *, lease_s: float = 60) -> str:
    progress = ShardProgress(10 * parts, 100 * parts, parts)
    return ledger.commit(claim, lease_s=lease_s, cursor=b"cursor %d" % parts, progress=progress)


def lose_worker(ledger: Ledger, *, alone: bool, last: Callable[[Claim], object] = lambda _: None) -> Claim:
    """Claim, do what is the attempt's last act, and let the lease lapse."""
    claim = claimed(ledger, alone=alone, lease_s=0)
    last(claim)
    ledger.renew([claim], lease_s=0)
    assert ledger.sweep(sweeper="s", lock_s=60, max_attempts=ATTEMPTS, limit=100).lapsed == 1
    return claim


def test_the_next_attempt_goes_on_at_the_cursor(ledger: Ledger) -> None:
    first = claimed(ledger)
    assert first.cursor == b""
    assert commit(ledger, first, 1) == "committed"
    assert commit(ledger, first, 2) == commit(ledger, first, 2) == "committed"
    (status,) = ledger.statuses(["a"])
    assert status is not None
    assert status.progress == ShardProgress(20, 200, 2)
    assert ledger.release(first)
    assert commit(ledger, first, 3) == "lost"
    assert claimed(ledger).cursor == b"cursor 2"


def test_a_worker_lost_after_a_part_costs_no_attempt_and_the_shard_stays_beside_others(ledger: Ledger) -> None:
    for parts in range(1, 3 * ATTEMPTS):
        claim = lose_worker(ledger, alone=False, last=partial(commit, ledger, parts=parts))
        assert claim.attempt == 1
    assert commit(ledger, claim, 99) == "committed", "nobody else has taken it"
    assert claimed_by_another(ledger) is Unclaimed.EMPTY


def claimed_by_another(ledger: Ledger) -> Claim | Unclaimed:
    return ledger.claim(token=new_token(), worker="other", lease_s=60)


def test_without_a_part_in_between_lost_workers_make_it_a_dead_letter_that_goes_on_at_the_cursor(
    ledger: Ledger,
) -> None:
    commit(ledger, claim := claimed(ledger), 1)
    ledger.release(claim)
    for attempt in range(ATTEMPTS):
        lose_worker(ledger, alone=attempt > 0)
    (letter,) = ledger.dead_letters()
    assert letter.status.error is not None
    assert letter.status.error.code == "poisoned"
    assert letter.status.progress == ShardProgress(10, 100, 1)
    ledger.requeue("a")
    assert claimed(ledger, alone=True).cursor == b"cursor 1"


def test_the_image_that_ends_workers_is_named_and_the_shard_goes_on(ledger: Ledger) -> None:
    lose_worker(ledger, alone=False)

    def up_to(position: int) -> Callable[[Claim], object]:
        return lambda claim: [ledger.try_alone(claim, number) for number in range(position + 1)]

    for _ in range(ATTEMPTS - 1):
        assert lose_worker(ledger, alone=True, last=up_to(4)).poisoned == frozenset()
    # Lost by chance at another image each time: that is no image's fault.
    for position in (7, 9, 8):
        assert lose_worker(ledger, alone=True, last=up_to(position)).poisoned == {4}
    claim = claimed(ledger, alone=True)
    assert commit(ledger, claim, 1) == "committed"
    assert ledger.release(claim)
    again = claimed(ledger)
    assert again.poisoned == {4}
    assert again.cursor == b"cursor 1"


def test_retries_count_from_the_last_part_on(ledger: Ledger) -> None:
    passing = Failure(code="storage_unavailable", message="the store is away")
    for parts in range(1, 4):
        claim = claimed(ledger)
        assert claim.retries == (parts > 1)
        commit(ledger, claim, parts)
        assert ledger.retry(claim, passing, worker="w", delay_s=0, max_retries=1, retry_for_s=60) == "delayed"
        ledger.sweep(sweeper="s", lock_s=60, max_attempts=ATTEMPTS, limit=100)


def test_a_cancelled_shard_is_told_with_its_next_part(ledger: Ledger) -> None:
    claim = claimed(ledger)
    ledger.cancel("a")
    assert commit(ledger, claim, 1) == "cancelled"
    ledger.finish(claim)
    (status,) = ledger.statuses(["a"])
    assert status is not None
    assert status.state is JobState.CANCELLED


def test_a_shard_is_told_with_its_next_part_that_a_job_of_a_higher_priority_waits(ledger: Ledger) -> None:
    claim = claimed(ledger)
    ledger.set_tenant("full", TenantLimits(most_running=1))

    def submit(job_id: str, priority: Priority, tenant: str) -> None:
        ledger.submit([Submission(job_id, b"document", "d", None, priority, None, tenant=tenant)])

    submit("equal", "normal", "other")
    submit("less", "low", "other")
    assert commit(ledger, claim, 1) == "committed"
    submit("first", "high", "full")
    assert commit(ledger, claim, 2) == "yield"
    assert ledger.release(claim)
    assert claimed(ledger).job_id == "first"
    submit("second", "high", "full")
    assert claimed(ledger).job_id == "equal"
    again = claimed(ledger)
    assert (again.job_id, again.cursor, again.attempt) == ("a", b"cursor 2", 1)
    assert commit(ledger, again, 3) == "committed", "the tenant of what waits may not run more"


def test_another_document_starts_anew(ledger: Ledger) -> None:
    claim = claimed(ledger)
    commit(ledger, claim, 1)
    ledger.finish(claim, error=Failure(code="object_changed", message="the tar was replaced"))
    ledger.submit([shard("other", replaces="failed")])
    assert claimed(ledger).cursor == b""
    (status,) = ledger.statuses(["a"])
    assert status is not None
    assert status.progress is None


def test_a_tenants_bucket_pays_for_each_part(ledger: Ledger) -> None:
    ledger.set_tenant("batch", TenantLimits(masks_per_second=1))
    claim = claimed(ledger)
    commit(ledger, claim, 1)
    empty_s = ledger.tenant_states().tenants[0].empty_for_s
    assert empty_s > 60
    commit(ledger, claim, 1)
    assert ledger.tenant_states().tenants[0].empty_for_s <= empty_s
