"""The ledger against a model of it: any sequence of transitions, by several workers, on a real Redis.

After each step: every accepted job is in exactly one place, which is the one that its state names; none is lost; at
most one attempt holds each; no attempt count passes the limit; and the batch's counts and events are those of the jobs.
In between, others leave entries and keys in the ledger's namespace, and Redis's clock is put back.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from maskscore.broker import LANES
from maskscore.devstack import LocalServices
from maskscore.ledger import BatchLedger, Claim, Ledger, Submission, Submitted, new_token
from maskscore.schema.result import Failure, JobState

MAX_ATTEMPTS, MAX_RETRIES = 2, 2
GONE_S, LONG_S = 0.001, 3600.0
# Few jobs and mostly short leases, so that attempts often meet.
JOBS = st.sampled_from("ab")
WHICH = st.integers(0, 3)
LAPSES = st.sampled_from([True, True, False])
FAILURE = Failure(code="storage_unavailable", message="away")


@dataclass
class Modelled:
    """What is known of a job: its state, whose it is, and what became of it."""

    state: str = "waiting"
    holder: Claim | None = None
    attempts: int = 0
    retries: int = 0
    device_faults: int = 0
    suspect: bool = False
    cancelling: bool = False
    ends: list[str] = field(default_factory=list)

    def end(self, state: str) -> None:
        self.state, self.holder, self.suspect, self.cancelling = state, None, False, False
        self.ends.append(state)

    def wait(self) -> None:
        if self.cancelling:
            self.end("cancelled")
        else:
            self.state = "waiting"


class LedgerMachine(RuleBasedStateMachine):
    """Workers claim with a lease that lapses at once or not at all, so that time is the machine's to decide."""

    url = ""

    @initialize()
    def begin(self) -> None:
        self.client: Any = redis.Redis.from_url(self.url)
        self.namespace = f"model-{uuid.uuid4().hex}"
        self.ledger = Ledger(self.client, namespace=self.namespace, ttl_s=60)
        self.batches = BatchLedger(self.client, namespace=self.namespace)
        self.jobs: dict[str, Modelled] = {}
        self.claims: list[Claim] = []
        for job_id in "ab":
            self.submit(job_id, other=False)
        self.lapsing: set[str] = set()

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.client.close()

    @rule(job_id=JOBS, other=st.sampled_from([False, False, True]))
    def submit(self, job_id: str, other: bool) -> None:
        submission = Submission(job_id, b"document", "other" if other else "digest", "batch", "normal", None)
        known = self.jobs.get(job_id)
        if known is None:
            submission = replace(submission, digest="digest")
        (answer,) = self.ledger.submit([submission])
        if known is None:
            self.jobs[job_id] = Modelled()
            assert answer is Submitted.WAITING
        elif other:
            assert answer is Submitted.CONFLICT
        else:
            assert answer is (Submitted.WAITING if known.state == "waiting" else Submitted.KNOWN)

    @rule(job_id=JOBS, alone=st.booleans(), lapses=LAPSES)
    def claim(self, job_id: str, alone: bool, lapses: bool) -> None:
        token = new_token()
        answer = self.ledger.claim(job_id, token=token, worker="w", lease_s=GONE_S if lapses else LONG_S, alone=alone)
        job = self.jobs.get(job_id)
        if job is None:
            assert answer == "unknown"
        elif job.state != "waiting":
            assert answer == job.state
        elif job.suspect and not alone:
            assert answer == "suspect"
        else:
            assert isinstance(answer, Claim)
            job.attempts += 1
            job.state, job.holder = "running", answer
            assert (answer.attempt, answer.retries) == (job.attempts, job.retries)
            (self.lapsing.add if lapses else self.lapsing.discard)(job_id)
            self.claims.append(answer)

    def picked(self, which: int) -> Claim:
        """A claim of any age: the latest are the likeliest to be alive."""
        return self.claims[-1 - which % len(self.claims)]

    def held(self, claim: Claim) -> Modelled | None:
        """The job, if this claim may still speak for it."""
        job = self.jobs[claim.job_id]
        return job if job.holder is claim and job.state in ("running", "waiting") else None

    @precondition(lambda self: self.claims)
    @rule(which=WHICH)
    def renew(self, which: int) -> None:
        claim = self.picked(which)
        (answer,) = self.ledger.renew([claim], lease_s=LONG_S)
        job = self.held(claim)
        if job is None:
            assert answer == "lost"
            return
        assert answer == ("cancelled" if job.cancelling else "renewed")
        if job.state == "waiting":
            job.suspect = False
        job.state = "running"
        self.lapsing.discard(claim.job_id)

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, succeeds=st.booleans(), dead=st.booleans())
    def finish(self, which: int, succeeds: bool, dead: bool) -> None:
        claim = self.picked(which)
        job = self.held(claim)
        if succeeds:
            answer = self.ledger.finish(claim, result=b"result")
        else:
            answer = self.ledger.finish(claim, error=FAILURE, dead_letter=dead)
        if job is None:
            assert answer is None
            return
        job.end("cancelled" if job.cancelling else "succeeded" if succeeds else "failed")
        assert answer == JobState(job.state)

    @precondition(lambda self: self.claims)
    @rule(which=WHICH)
    def retry(self, which: int) -> None:
        claim = self.picked(which)
        answer = self.ledger.retry(
            claim, FAILURE, worker="w", delay_s=GONE_S, max_retries=MAX_RETRIES, retry_for_s=LONG_S
        )
        job = self.held(claim)
        if job is None:
            assert answer is None
        elif job.cancelling:
            assert answer == "cancelled"
            job.end("cancelled")
        elif job.retries == MAX_RETRIES:
            assert answer == "exhausted"
        else:
            assert answer == "delayed"
            job.state, job.holder = "delayed", None
            job.attempts -= 1
            job.retries += 1

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, device_fault=st.sampled_from(["", "the device is broken"]))
    def release(self, which: int, device_fault: str) -> None:
        claim = self.picked(which)
        lane = self.ledger.release(claim, device_fault=device_fault)
        job = self.held(claim)
        if job is None:
            assert lane is None
            return
        if device_fault and not job.cancelling:
            job.device_faults += 1
            if job.suspect and job.device_faults > 3:
                job.end("failed")
                assert lane is None
                return
            job.suspect = job.suspect or job.device_faults == 3
        job.holder = None
        job.attempts -= 1
        job.wait()
        assert (lane is not None) == (job.state == "waiting")

    @rule(job_id=JOBS)
    def cancel(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        (answer,) = self.ledger.cancel_many([job_id])
        if job is None:
            assert answer is None
        elif job.state in ("waiting", "delayed"):
            job.end("cancelled")
            assert answer is JobState.CANCELLED
        elif job.state == "running":
            job.cancelling = True
            assert answer is JobState.RUNNING

    @precondition(lambda self: any(job.state in ("failed", "cancelled") for job in self.jobs.values()))
    @rule(job_id=JOBS, drop=st.booleans())
    def requeue(self, job_id: str, drop: bool) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            return
        poisoned = (status := self.ledger.record(job_id).status).error is not None and status.error.code == "poisoned"
        if drop:
            self.ledger.drop(job_id)
        self.ledger.requeue(job_id)
        if job.state in ("failed", "cancelled"):
            job.state, job.attempts, job.retries, job.device_faults, job.suspect = "waiting", 0, 0, 0, poisoned

    @rule(place=st.sampled_from(["waiting:normal", "waiting:low.again", "running", "delayed", "expiring", "dead"]))
    def leave_an_id_without_a_record(self, place: str) -> None:
        # Where somebody else has put a key of another type before, there is nothing to add to.
        with contextlib.suppress(redis.ResponseError):
            self.client.zadd(f"{self.namespace}:{place}", {f"stray-{place}": 1})

    @rule(key=st.sampled_from(["job:stray-running", "reached", "keeper", "dead", "expiring", "waiting:high"]))
    def leave_a_key_of_another_type(self, key: str) -> None:
        # None of the model's jobs is in these: what was there is whoever's who replaced it.
        self.client.delete(f"{self.namespace}:{key}")
        self.client.geoadd(f"{self.namespace}:{key}", [1, 1, "x"]) if key == "reached" else self.client.rpush(
            f"{self.namespace}:{key}", "x"
        )

    @rule(hours=st.integers(1, 3))
    def put_redis_clock_back(self, hours: int) -> None:
        """All that was written is so much later than Redis's clock then."""
        later = hours * 3_600_000
        seconds, micros = self.client.time()
        clock = f"{self.namespace}:clock"
        # `last` is up to a second old otherwise, by which what is due would be late.
        last = seconds * 1000 + micros // 1000 + int(self.client.hget(clock, "ahead") or 0) + later
        self.client.hset(clock, "last", last)
        with self.client.pipeline(transaction=False) as pipeline:
            for place in ("running", "delayed", *(f"waiting:{lane}" for lane in LANES)):
                key = f"{self.namespace}:{place}"
                if self.client.type(key) == b"zset":
                    for name, score in self.client.zrange(key, 0, -1, withscores=True):
                        pipeline.zadd(key, {name: score + later})
            pipeline.execute()

    @rule()
    def sweep(self) -> None:
        # The short leases and delays are over by Redis's clock, too.
        time.sleep(3 * GONE_S)
        swept = self.ledger.sweep(
            sweeper="k", lock_s=60, max_attempts=MAX_ATTEMPTS, stranded_after_s=LONG_S, queue_keys=LANES, limit=100
        )
        expected = set()
        lapsed = poisoned = 0
        for job_id, job in self.jobs.items():
            if job.state == "running" and job_id in self.lapsing:
                lapsed += 1
                if job.attempts >= MAX_ATTEMPTS and not job.cancelling:
                    poisoned += 1
                    job.end("failed")
                    continue
                job.suspect = True
            elif job.state != "delayed":
                continue
            job.wait()
            if job.state == "waiting":
                expected.add(job_id)
        assert (swept.held, swept.lapsed, swept.poisoned) == (True, lapsed, poisoned)
        assert {job_id for job_id, _ in swept.messages} == expected
        assert all("stray" in str(stray) or not stray.job_id for stray in swept.strays), swept.strays

    @invariant()
    def every_job_is_in_the_one_place_that_its_state_names(self) -> None:
        places: dict[str, list[str]] = {}
        sets = {"running": "running", "delayed": "delayed", **{f"waiting:{lane}": "waiting" for lane in LANES}}
        with self.client.pipeline(transaction=True) as pipeline:
            for key in sets:
                # A key of another type holds no job.
                pipeline.zrange(f"{self.namespace}:{key}", 0, -1)
            for job_id in self.jobs:
                pipeline.hgetall(f"{self.namespace}:job:{job_id}")
            answers = pipeline.execute(raise_on_error=False)
        for state, ids in zip(sets.values(), answers, strict=False):
            for job_id in [] if isinstance(ids, redis.ResponseError) else ids:
                if not job_id.startswith(b"stray"):
                    places.setdefault(job_id.decode(), []).append(state)
        going = {
            job_id: [job.state] for job_id, job in self.jobs.items() if job.state in ("waiting", "running", "delayed")
        }
        assert places == going
        for job, record in zip(self.jobs.values(), answers[len(sets) :], strict=True):
            assert record[b"state"].decode() == job.state
            assert int(record[b"attempts"]) == job.attempts <= MAX_ATTEMPTS
            # A token stands for a live attempt, or for one whose lease has lapsed and whose job nobody has taken.
            token = record.get(b"token")
            assert token is None or (job.holder is not None and token.decode() == job.holder.token)
            assert (job.state == "running") <= (token is not None)

    @invariant()
    def the_batch_knows_its_jobs(self) -> None:
        counts = self.batches.counts("batch")
        public = {"waiting": "queued", "delayed": "queued"}
        expected = Counter(public.get(job.state, job.state) for job in self.jobs.values())
        if counts is None:
            assert not self.jobs
            return
        for state in JobState:
            assert getattr(counts, state.value) == expected[state.value]
        ends: dict[str, list[str]] = {}
        for event in self.batches.events("batch", after="0", limit=10_000, block_s=0):
            ends.setdefault(event.job_id, []).append(event.state.value)
        assert ends == {job_id: job.ends for job_id, job in self.jobs.items() if job.ends}


@pytest.mark.timeout(600)
def test_the_ledger_behaves_as_its_model(services: LocalServices) -> None:
    LedgerMachine.url = services.redis.url
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
