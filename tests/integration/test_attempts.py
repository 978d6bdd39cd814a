"""How a failed attempt ends in a real ledger, by whose fault it was."""

from __future__ import annotations

import contextlib
import errno
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import redis
from redis._parsers.base import BaseParser

from claims import claim_job
from maskscore.devstack import LocalServices
from maskscore.errors import FailureCode, JobError
from maskscore.ledger import Claim, Ledger, Submission, Unclaimed, new_token
from maskscore.schema.document import pack
from maskscore.schema.job import Job
from maskscore.schema.result import JobResult, JobState
from maskscore.settings import WorkerSettings
from maskscore.storage import StoredResult
from maskscore_worker.jobs.exclusive_gate import ExclusiveGate
from maskscore_worker.jobs.job_runner import JobRunner
from maskscore_worker.jobs.leases import Leases
from maskscore_worker.jobs.shutdown import Shutdown
from maskscore_worker.jobs.worker_faults import WorkerFaults
from maskscore_worker.model.device_check import DeviceCheck
from maskscore_worker.telemetry.metrics import WorkerMetrics


class Scripted:
    """In the pipeline's place: does to each job what it is told."""

    worker = "w"
    device_check = DeviceCheck(lambda: np.ones((1, 4), np.float32))

    def __init__(self) -> None:
        self.does: Callable[[Job], JobResult] = lambda job: JobResult(job_id=job.job_id, state=JobState.SUCCEEDED)

    def run(self, job: Job, *_: object) -> tuple[JobResult, StoredResult]:
        result = self.does(job)
        return result, StoredResult(pack(result), None)

    def fail_with(self, error: BaseException) -> None:
        def fail(_: Job) -> JobResult:
            raise error

        self.does = fail


class Bench:
    def __init__(self, url: str) -> None:
        self.settings = WorkerSettings(redis_url=url, namespace=f"attempts-{uuid.uuid4().hex[:8]}")
        self.client = redis.Redis.from_url(url)
        self.ledger = Ledger(self.client, namespace=self.settings.namespace, ttl_s=60)
        self.leases = Leases(self.ledger, lease_s=60, timeout_s=60)
        self.shutdown = Shutdown(
            self.ledger, self.leases, grace_s=3600, claim_timeout_s=60, exit_process=lambda _: None
        )
        self.faults = WorkerFaults(self.shutdown, most_s=0.01)
        self.gate = ExclusiveGate()
        self.pipeline = Scripted()
        pipeline: Any = self.pipeline
        self.runner = JobRunner(
            self.settings,
            self.ledger,
            self.leases,
            self.gate,
            self.shutdown,
            self.faults,
            pipeline,
            WorkerMetrics(),
            None,
        )

    def submit(self, job_id: str) -> None:
        job = Job(job_id=job_id, image="s3://photos/a.jpg", masks="s3://masks/a.json")
        self.ledger.submit([Submission(job_id, pack(job), job_id, None, "normal", None)])

    def state(self, job_id: str) -> JobState:
        return self.ledger.record(job_id).status.state


@pytest.fixture
def bench(services: LocalServices) -> Iterator[Bench]:
    bench = Bench(services.redis.url)
    yield bench
    bench.client.close()


@pytest.mark.parametrize("broken", ["a", "b", "c"])
def test_a_job_that_cannot_be_given_back_does_not_keep_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    holders = []
    for job_id in "abc":
        bench.submit(job_id)
        claim = claim_job(bench.ledger, job_id)
        hold = bench.leases.hold(claim)
        hold.__enter__()
        holders.append(hold)
    release = bench.ledger.release

    def refuse(claim: Claim, **how: Any) -> bool:
        if claim.job_id == broken:
            raise redis.ConnectionError("Redis does not answer")
        return release(claim, **how)

    monkeypatch.setattr(bench.ledger, "release", refuse)
    assert bench.shutdown.release_all() == 2
    # The third one comes back when its lease has lapsed.
    states = {job_id: JobState.RUNNING if job_id == broken else JobState.QUEUED for job_id in "abc"}
    assert {job_id: bench.state(job_id) for job_id in "abc"} == states
    for hold in holders:
        hold.__exit__(None, None, None)


def test_a_job_that_breaks_each_device_is_run_alone_and_then_given_up(bench: Bench) -> None:
    def break_device_under(*job_ids: str, alone: bool = False) -> None:
        with ExitStack() as held:
            for job_id in job_ids:
                claim = claim_job(bench.ledger, job_id, alone=alone)
                held.enter_context(bench.leases.hold(claim))
            bench.shutdown.end_for_broken_device("the device is broken: an illegal address")

    for job_id in ("bad", "0", "1", "2"):
        bench.submit(job_id)
    for beside in ("0", "1", "2"):
        break_device_under("bad", beside)
    assert bench.ledger.claim(token=new_token(), worker="w", lease_s=60) is Unclaimed.SUSPECT
    assert bench.state("bad") is JobState.QUEUED
    break_device_under("0", "1", "2")
    break_device_under("bad", alone=True)
    (letter,) = bench.ledger.dead_letters()
    assert letter.status.error is not None
    assert (letter.status.job_id, letter.status.error.code) == ("bad", FailureCode.POISONED)
    assert {(reason.code, reason.worker) for reason in letter.reasons} == {(FailureCode.DEVICE_BROKEN, "w")}
    assert len(letter.reasons) == 4
    for job_id in ("0", "1", "2"):
        assert claim_job(bench.ledger, job_id).attempt == 1
    assert bench.ledger.requeue("bad") is JobState.FAILED
    assert bench.ledger.claim(token=new_token(), worker="w", lease_s=60) is Unclaimed.SUSPECT


@pytest.mark.parametrize(
    ("refused", "state"),
    [
        ("NOPERM this user has no permissions to run the 'evalsha' command", JobState.RUNNING),
        ("ERR string exceeds maximum allowed size (proto-max-bulk-len)", JobState.FAILED),
    ],
)
def test_a_result_is_given_up_for_what_redis_says_of_it_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, refused: str, state: JobState
) -> None:
    parser: Any = BaseParser
    finish = bench.ledger.finish

    def refuse(claim: Claim, **outcome: Any) -> JobState | None:
        if outcome.get("result"):
            raise parser.parse_error(refused)
        return finish(claim, **outcome)

    monkeypatch.setattr(bench.ledger, "finish", refuse)
    bench.submit("a")
    with contextlib.suppress(redis.exceptions.NoPermissionError):
        bench.runner.run()
    assert bench.state("a") is state


FORBIDDEN = JobError(FailureCode.IMAGE_FORBIDDEN, "the bucket's policy forbids it")
EXPIRED_TOKEN = JobError(FailureCode.STORAGE_UNAVAILABLE, "the session token has expired", of_worker=True)
AWAY = JobError(FailureCode.STORAGE_UNAVAILABLE, "the store is away")


@pytest.mark.parametrize(
    ("error", "state", "code", "of_worker"),
    [
        (FORBIDDEN, JobState.FAILED, "image_forbidden", False),
        (ValueError("a defect"), JobState.FAILED, "internal_error", False),
        (FileNotFoundError(errno.ENOENT, "a defect"), JobState.FAILED, "internal_error", False),
        (AWAY, JobState.QUEUED, "storage_unavailable", False),
        (EXPIRED_TOKEN, JobState.QUEUED, "storage_unavailable", True),
        (BlockingIOError(errno.EAGAIN, "no more processes"), JobState.QUEUED, "out_of_memory", True),
        (OSError(errno.EMFILE, "too many open files"), JobState.QUEUED, "out_of_memory", True),
    ],
)
def test_what_is_not_the_jobs_fault_does_not_fail_it(
    bench: Bench, error: BaseException, state: JobState, code: str, of_worker: bool
) -> None:
    bench.submit("a")
    bench.pipeline.fail_with(error)
    bench.runner.run()
    assert bench.state("a") is state
    assert (bench.faults.reason is not None) is of_worker
    if state is JobState.FAILED:
        failure = bench.ledger.record("a").status.error
        assert failure is not None
        assert failure.code == code
    else:
        assert code.encode() in (bench.client.hget(f"{bench.settings.namespace}:job:a", "reasons") or b"")
    bench.submit("b")
    bench.pipeline.does = Scripted().does
    assert bench.runner.run() == "job b succeeded"
    assert bench.state("b") is JobState.SUCCEEDED
    assert bench.faults.reason is None


def test_a_worker_that_is_at_fault_takes_jobs_ever_more_slowly_but_drains_at_once(bench: Bench) -> None:
    faults = WorkerFaults(bench.shutdown, most_s=3600)
    faults.wait()
    faults.record("the token has expired")
    faults.record("the token has expired")
    assert 0 < faults._pause_s <= 1
    bench.shutdown.request()
    faults.wait()


def test_a_ticket_runs_the_next_job_and_a_suspect_alone(bench: Bench) -> None:
    began: list[str] = []
    assert bench.runner.run(began.append) == Unclaimed.EMPTY
    for job_id in "ab":
        bench.submit(job_id)
    claim = bench.ledger.claim(token=new_token(), worker="gone", lease_s=0.001)
    assert isinstance(claim, Claim)
    while not bench.ledger.sweep(sweeper="k", lock_s=60, max_attempts=3, limit=9).lapsed:
        pass

    def score(job: Job) -> JobResult:
        assert bench.gate.is_open == (job.job_id == "b")
        return JobResult(job_id=job.job_id, state=JobState.SUCCEEDED)

    bench.pipeline.does = score
    assert bench.runner.run(began.append) == "job a succeeded"
    assert bench.runner.run(began.append) == "job b succeeded"
    assert began == ["a", "b"]
    bench.submit("c")
    bench.shutdown.request()
    # A ticket that a worker takes while it drains is made good by the sweeper.
    assert "ends" in bench.runner.run(began.append)
    assert bench.state("c") is JobState.QUEUED
