"""The ledger's transitions against a real Redis."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import pytest
import redis

from maskscore.errors import JobConflict, JobNotFound
from maskscore.ledger import Claim, Ledger, Submission
from maskscore.local import LocalServices
from maskscore.result import Failure, JobState


@pytest.fixture
def client(services: LocalServices) -> redis.Redis:
    return redis.Redis.from_url(services.redis.url)


@pytest.fixture
def namespace() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def ledger(client: redis.Redis, namespace: str) -> Ledger:
    return Ledger(client, namespace=namespace, ttl_s=60)


def submission(job_id: str = "a", digest: str = "d", expires_in_s: float | None = None) -> Submission:
    return Submission(job_id, b"document", digest, "batch", "normal", expires_in_s)


def claimed(ledger: Ledger, job_id: str = "a", lease_s: float = 60) -> Claim:
    claim = ledger.claim(job_id, worker="w", lease_s=lease_s)
    assert claim is not None
    return claim


def state(ledger: Ledger, job_id: str = "a") -> JobState:
    (status,) = ledger.statuses([job_id])
    assert status is not None
    return status.state


def until(condition: Callable[[], bool]) -> None:

    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come about within 10 s"
        time.sleep(0.01)


def test_a_job_goes_from_waiting_through_running_to_its_result(ledger: Ledger) -> None:
    assert ledger.submit([submission()]) == [True]
    assert state(ledger) is JobState.QUEUED
    assert ledger.backlog().waiting == 1
    claim = claimed(ledger)
    assert (claim.attempt, claim.document) == (1, b"document")
    assert claim.submitted_at <= claim.claimed_at
    assert (ledger.backlog().waiting, ledger.backlog().running) == (0, 1)
    assert ledger.finish(claim, result=b"result")
    record = ledger.record("a")
    assert (record.status.state, record.result, record.status.worker) == (JobState.SUCCEEDED, b"result", "w")
    assert record.status.finished_at is not None
    assert record.status.batch_id == "batch"
    assert ledger.document("a") == b"document"
    backlog = ledger.backlog()
    assert (backlog.waiting, backlog.running, backlog.delayed, backlog.oldest_waiting_s) == (0, 0, 0, 0)


def test_a_failure_keeps_its_code_and_sentence(ledger: Ledger) -> None:
    ledger.submit([submission()])
    assert ledger.finish(claimed(ledger), error=Failure(code="image_not_found", message="gone"))
    assert ledger.record("a").status.error == Failure(code="image_not_found", message="gone")
    assert state(ledger) is JobState.FAILED


def test_submitting_again_is_the_same_job_and_needs_a_message_only_while_it_waits(ledger: Ledger) -> None:
    assert ledger.submit([submission(), submission("b")]) == [True, True]
    assert ledger.submit([submission()]) == [True]
    claim = claimed(ledger)
    assert ledger.submit([submission()]) == [False]
    ledger.finish(claim, result=b"r")
    assert ledger.submit([submission()]) == [False]
    assert ledger.record("a").result == b"r"


def test_submitting_again_wakes_a_job_whose_worker_was_lost(ledger: Ledger, client: redis.Redis) -> None:
    ledger.submit([submission()])
    lost = claimed(ledger, lease_s=0.01)
    until(lambda: redis_seconds(client) > lost.claimed_at.timestamp() + 0.02)
    assert ledger.submit([submission()]) == [True]
    assert claimed(ledger).attempt == 2
    assert ledger.submit([submission()]) == [False]


def test_another_document_under_a_known_id_is_a_conflict_that_changes_nothing(ledger: Ledger) -> None:
    ledger.submit([submission()])
    with pytest.raises(JobConflict, match="as job a"):
        ledger.submit([submission("b"), submission(digest="other")])
    assert claimed(ledger).document == b"document"
    assert state(ledger, "b") is JobState.QUEUED


def test_a_duplicate_message_claims_nothing(ledger: Ledger) -> None:
    ledger.submit([submission()])
    claim = claimed(ledger)
    assert ledger.claim("a", worker="other", lease_s=60) is None
    ledger.finish(claim, result=b"r")
    assert ledger.claim("a", worker="other", lease_s=60) is None
    assert ledger.claim("never submitted", worker="w", lease_s=60) is None


def test_a_stale_attempt_cannot_overwrite(ledger: Ledger) -> None:
    ledger.submit([submission()])
    frozen = claimed(ledger, lease_s=0.01)
    takers: list[Claim | None] = []

    def taken() -> bool:
        takers.append(ledger.claim("a", worker="other", lease_s=60))
        return takers[-1] is not None

    until(taken)
    current = takers[-1]
    assert current is not None
    assert current.attempt == 2
    assert ledger.renew([frozen, current], lease_s=60) == ["lost", "renewed"]
    assert not ledger.finish(frozen, result=b"old")
    assert ledger.finish(current, result=b"new")
    assert ledger.record("a").result == b"new"


def test_renewing_moves_the_lease_on(ledger: Ledger, client: redis.Redis, namespace: str) -> None:
    ledger.submit([submission()])
    claim = claimed(ledger, lease_s=1)
    before = client.zscore(f"{namespace}:running", "a")
    assert ledger.renew([claim], lease_s=100) == ["renewed"]
    after = client.zscore(f"{namespace}:running", "a")
    assert before is not None
    assert after is not None
    assert after - before > 90_000


def test_a_cancelled_queued_job_never_runs(ledger: Ledger) -> None:
    ledger.submit([submission()])
    assert ledger.cancel("a") is JobState.CANCELLED
    assert ledger.claim("a", worker="w", lease_s=60) is None
    error = ledger.record("a").status.error
    assert error is not None
    assert error.code == "cancelled"
    assert ledger.backlog().waiting == 0


def test_a_running_job_is_asked_to_stop_and_ends_as_cancelled(ledger: Ledger) -> None:
    ledger.submit([submission()])
    claim = claimed(ledger)
    assert ledger.cancel("a") is JobState.RUNNING
    assert ledger.renew([claim], lease_s=60) == ["cancelled"]
    assert ledger.finish(claim, result=b"too late")
    assert state(ledger) is JobState.CANCELLED
    assert ledger.record("a").result is None


def test_cancelling_an_ended_job_changes_nothing(ledger: Ledger) -> None:
    ledger.submit([submission()])
    ledger.finish(claimed(ledger), result=b"r")
    assert ledger.cancel("a") is JobState.SUCCEEDED
    assert ledger.record("a").result == b"r"


def test_a_job_that_waited_too_long_expires_unrun(ledger: Ledger, client: redis.Redis) -> None:
    ledger.submit([submission(expires_in_s=0.001), submission("b", expires_in_s=3600)])
    (submitted,) = ledger.statuses(["a"])
    assert submitted is not None
    # By Redis's clock, as the ledger counts.
    until(lambda: redis_seconds(client) > submitted.submitted_at.timestamp() + 0.01)
    assert ledger.claim("a", worker="w", lease_s=60) is None
    assert state(ledger) is JobState.EXPIRED
    assert ledger.claim("b", worker="w", lease_s=60) is not None


def redis_seconds(client: redis.Redis) -> float:
    seconds, micros = client.time()
    return float(seconds + micros / 1e6)


def test_unknown_jobs_are_said_to_be_unknown(ledger: Ledger) -> None:
    assert ledger.statuses(["nobody"]) == [None]
    for ask in (ledger.record, ledger.cancel, ledger.document):
        with pytest.raises(JobNotFound, match="nobody"):
            ask("nobody")


def test_only_ended_jobs_are_forgotten(ledger: Ledger, client: redis.Redis, namespace: str) -> None:
    ledger.submit([submission(), submission("b")])
    ledger.finish(claimed(ledger), result=b"r")
    ttl = client.pttl(f"{namespace}:job:a")
    assert isinstance(ttl, int)
    assert 0 < ttl <= 60_000
    assert client.pttl(f"{namespace}:job:b") == -1


def test_namespaces_do_not_see_each_other(ledger: Ledger, client: redis.Redis) -> None:
    other = Ledger(client, namespace=f"other-{uuid.uuid4().hex[:8]}", ttl_s=60)
    ledger.submit([submission()])
    assert other.statuses(["a"]) == [None]
