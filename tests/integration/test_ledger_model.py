"""The ledger against a model of it: any sequence of transitions, by several workers, on a real Redis.

After each step: every accepted job is in exactly one place, which is the one that its state names; none is lost; at
most one attempt holds each; no attempt count passes the limit; and the batch's counts and events are those of the jobs.
One tenant may have one job running and two queued, of all models; another has a bucket of masks, which is charged once
per job. In between, others leave entries and keys in the ledger's namespace, and Redis's clock is put back.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Callable
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

from maskscore.broker import queue_keys
from maskscore.devstack import LocalServices
from maskscore.ledger import (
    BatchLedger,
    Claim,
    Ledger,
    ModelBacklog,
    Submission,
    Submitted,
    TenantLimits,
    Unclaimed,
    new_token,
)
from maskscore.schema.result import Failure, JobState

MAX_ATTEMPTS, MAX_RETRIES = 2, 2
GONE_S, LONG_S = 0.001, 3600.0
# Few jobs and mostly short leases, so that attempts often meet.
JOBS = st.sampled_from("abcdefgh")
# Whose each job is, how urgent, and of which model.
TENANTS = {"a": "x", "b": "x", "c": "z", "d": "z", "e": "x", "f": "x", "g": "z", "h": "y"}
PRIORITIES = {**dict.fromkeys("abcdfgh", "normal"), "e": "high"}
MODELS = {**dict.fromkeys("abcdeh", ""), "f": "m", "g": "m"}
MASKS = {**dict.fromkeys("abcefgh", 1), "d": 2}
WEIGHTS = {"x": 1, "y": 1, "z": 3}
MOST_QUEUED, MOST_RUNNING = {"x": 2}, {"x": 1}
# The tenant with a bucket gets one mask in so many milliseconds, which no test waits for.
BUCKET, MASK_MS = "z", 1000 * 3_600_000
WHICH = st.integers(0, 3)
PLACES = (
    *("running", "delayed", "suspects:", "suspects:m"),
    *(f"queue:{PRIORITIES[job]}:{MODELS[job]}:{TENANTS[job]}" for job in "acefgh"),
)
LAPSES = st.sampled_from([True, True, False])
FAILURE = Failure(code="storage_unavailable", message="away")


@dataclass
class Modelled:
    """What is known of a job: its state, whose it is, and what became of it.

    ``number`` orders the waiting ones. ``reserved`` says of a suspect whether a worker waits until it is alone;
    ``None``: it may have waited long enough.
    """

    job_id: str
    state: str = "waiting"
    holder: Claim | None = None
    attempts: int = 0
    retries: int = 0
    device_faults: int = 0
    taken: int = 0
    number: int = 0
    suspect: bool = False
    reserved: bool | None = False
    cancelling: bool = False
    ends: list[str] = field(default_factory=list)

    def end(self, state: str) -> None:
        self.state, self.holder, self.suspect, self.cancelling, self.number = state, None, False, False, 0
        self.ends.append(state)


class Turns:
    """Start-time fair queueing among the tenants of one priority and model, as the ledger does it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.next: dict[str, float] = {}
        # Those whose bucket was found empty, with the turn that they keep.
        self.resting: dict[str, float] = {}

    def enter(self, tenant: str) -> None:
        if tenant not in self.resting:
            self.next.setdefault(tenant, self.now)

    def rest(self, tenant: str) -> None:
        self.resting[tenant] = self.next.pop(tenant)

    def resume(self) -> None:
        self.next.update(self.resting)
        self.resting.clear()

    def leave(self, tenant: str, *, empty: bool) -> None:
        if empty and self.next.get(tenant, 0.0) <= self.now:
            self.next.pop(tenant, None)

    def pick(self, waiting: dict[str, list[Modelled]], full: set[str], bucket: Bucket) -> Modelled | None:
        for tenant in sorted(self.next, key=lambda name: (self.next[name], name)):
            if not waiting.get(tenant):
                del self.next[tenant]
            elif tenant == BUCKET and bucket.owed > 0:
                bucket.paused = bucket.owed
                self.rest(tenant)
            elif tenant not in full:
                self.now = max(self.now, self.next[tenant])
                self.next[tenant] = self.now + 1 / WEIGHTS[tenant]
                job = min(waiting[tenant], key=lambda job: job.number)
                if tenant == BUCKET:
                    bucket.take(MASKS[job.job_id] - job.taken)
                    job.taken = max(job.taken, MASKS[job.job_id])
                    if bucket.owed > 0 and len(waiting[tenant]) > 1:
                        bucket.paused = bucket.owed
                        self.rest(tenant)
                return job
        return None


@dataclass
class Bucket:
    """What a tenant with a limit of masks per second has to wait for, in masks; and had, when it was found empty."""

    owed: int = 0
    paused: int | None = None

    def take(self, masks: int) -> None:
        self.owed = max(self.owed, 0) + masks


def lane(job: Modelled) -> tuple[str, str]:
    """The priority and the model, whose tenants take turns."""
    return PRIORITIES[job.job_id], MODELS[job.job_id]


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
        self.turns = {(name, model): Turns() for model in ("", "m") for name in ("high", "normal")}
        self.last_number = 0
        self.lapsing: set[str] = set()
        self.bucket = Bucket()
        self.ledger.set_tenant("x", TenantLimits(most_queued=MOST_QUEUED["x"], most_running=MOST_RUNNING["x"]))
        self.ledger.set_tenant("z", TenantLimits(weight=WEIGHTS["z"], masks_per_second=1000 / MASK_MS))
        for job_id in "abc":
            self.submit(job_id, other=False)

    def wait(self, job: Modelled) -> None:
        if job.cancelling:
            self.leave(job)
            job.end("cancelled")
            return
        self.last_number += 1
        if job.state != "waiting":
            job.state, job.reserved = "waiting", False
            job.number = job.number or self.last_number
            if not job.suspect:
                self.turns[lane(job)].enter(TENANTS[job.job_id])

    def queues(self, wanted: tuple[str, str]) -> dict[str, list[Modelled]]:
        found: dict[str, list[Modelled]] = {}
        for job in self.jobs.values():
            if job.state == "waiting" and not job.suspect and lane(job) == wanted:
                found.setdefault(TENANTS[job.job_id], []).append(job)
        return found

    def running(self, tenant: str) -> int:
        return sum(job.state == "running" for job in self.jobs.values() if TENANTS[job.job_id] == tenant)

    def startable(self, model: str) -> int:
        """How many of a model's waiting jobs could be claimed now, one of a tenant with a bucket, and all suspects."""
        states = [job for job in self.jobs.values() if job.state == "waiting" and MODELS[job.job_id] == model]
        waiting = Counter(TENANTS[job.job_id] for job in states if not job.suspect)
        for tenant, most in MOST_RUNNING.items():
            waiting[tenant] = min(waiting[tenant], max(0, most - self.running(tenant)))
        waiting[BUCKET] = 0 if self.bucket.owed > 0 else min(waiting[BUCKET], 1)
        return waiting.total() + sum(job.suspect for job in states)

    def resume(self) -> None:
        if self.bucket.paused is not None and self.bucket.paused <= 0:
            self.bucket.paused = None
            for turns in self.turns.values():
                turns.resume()

    def leave(self, job: Modelled) -> None:
        """To be called before a waiting job's state changes, but for a claim."""
        if job.state == "waiting" and not job.suspect:
            tenant = TENANTS[job.job_id]
            others = [other for other in self.queues(lane(job))[tenant] if other is not job]
            self.turns[lane(job)].leave(tenant, empty=not others)

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.client.close()

    @rule(job_id=JOBS, other=st.sampled_from([False, False, True]))
    def submit(self, job_id: str, other: bool) -> None:
        priority: Any = PRIORITIES[job_id]
        submission = Submission(
            *(job_id, b"document", "other" if other else "digest", "batch", priority, None),
            tenant=TENANTS[job_id],
            model=MODELS[job_id],
            masks=MASKS[job_id],
        )
        known = self.jobs.get(job_id)
        if known is None:
            submission = replace(submission, digest="digest")
        (answer,) = self.ledger.submit([submission])
        tenant = TENANTS[job_id]
        queued = sum(len(self.queues(each).get(tenant, [])) for each in self.turns)
        if known is None and queued >= MOST_QUEUED.get(tenant, len(TENANTS)):
            assert answer is Submitted.TENANT_FULL
        elif known is None:
            self.jobs[job_id] = Modelled(job_id, state="new")
            self.wait(self.jobs[job_id])
            assert answer is Submitted.WAITING
        elif other:
            assert answer is Submitted.CONFLICT
        else:
            assert answer is (Submitted.WAITING if known.state == "waiting" else Submitted.KNOWN)

    @rule(alone=st.sampled_from([False, False, True]), lapses=LAPSES, model=st.sampled_from(["", "", "", "m"]))
    def claim(self, alone: bool, lapses: bool, model: str) -> None:
        token, lease_s = new_token(), GONE_S if lapses else LONG_S
        answer = self.ledger.claim(token=token, worker="w", lease_s=lease_s, model=model, alone=alone)
        self.resume()
        suspects = [
            job for job in self.jobs.values() if job.state == "waiting" and job.suspect and MODELS[job.job_id] == model
        ]
        if alone:
            assert isinstance(answer, Claim) == bool(suspects)
        else:
            if answer is Unclaimed.SUSPECT:
                free = [job for job in suspects if job.reserved is not True]
                assert free
                # Which of them it was is not said.
                for job in free:
                    job.reserved = True if not lapses and len(free) == 1 else None
                return
            assert not any(job.reserved is False for job in suspects)
            lanes = [(name, model) for name in ("high", "normal")]
            full = {tenant for tenant, most in MOST_RUNNING.items() if self.running(tenant) >= most}
            picked = (self.turns[each].pick(self.queues(each), full, self.bucket) for each in lanes)
            expected = next(filter(None, picked), None)
            assert (expected.job_id if expected else None) == (answer.job_id if isinstance(answer, Claim) else None)
        if not isinstance(answer, Claim):
            assert answer is Unclaimed.EMPTY
            return
        job = self.jobs[answer.job_id]
        assert (job.state, job.suspect) == ("waiting", alone)
        job.attempts += 1
        job.state, job.holder = "running", answer
        assert (answer.attempt, answer.retries) == (job.attempts, job.retries)
        (self.lapsing.add if lapses else self.lapsing.discard)(job.job_id)
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
        self.leave(job)
        if job.state == "waiting":
            job.suspect = False
        job.state = "running"
        self.lapsing.discard(claim.job_id)

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, succeeds=st.booleans(), dead=st.booleans(), masks=st.sampled_from([None, None, 0, 1, 3]))
    def finish(self, which: int, succeeds: bool, dead: bool, masks: int | None) -> None:
        claim = self.picked(which)
        job = self.held(claim)
        if succeeds:
            answer = self.ledger.finish(claim, result=b"result", masks=masks)
        else:
            answer = self.ledger.finish(claim, error=FAILURE, dead_letter=dead, masks=masks)
        if job is None:
            assert answer is None
            return
        if masks is not None and TENANTS[job.job_id] == BUCKET:
            self.bucket.take(masks - job.taken)
        self.leave(job)
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
            self.leave(job)
            job.end("cancelled")
        elif job.retries == MAX_RETRIES:
            assert answer == "exhausted"
        else:
            assert answer == "delayed"
            self.leave(job)
            job.state, job.holder = "delayed", None
            job.attempts -= 1
            job.retries += 1

    @precondition(lambda self: self.claims)
    @rule(which=WHICH, device_fault=st.sampled_from(["", "the device is broken"]))
    def release(self, which: int, device_fault: str) -> None:
        claim = self.picked(which)
        waits = self.ledger.release(claim, device_fault=device_fault)
        job = self.held(claim)
        if job is None:
            assert not waits
            return
        if device_fault and not job.cancelling:
            job.device_faults += 1
            if job.suspect and job.device_faults > 3:
                self.leave(job)
                job.end("failed")
                assert not waits
                return
            job.suspect = job.suspect or job.device_faults == 3
        job.holder = None
        job.attempts -= 1
        self.wait(job)
        assert waits == (job.state == "waiting")

    @rule(job_id=JOBS)
    def cancel(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        (answer,) = self.ledger.cancel_many([job_id])
        if job is None:
            assert answer is None
        elif job.state in ("waiting", "delayed"):
            self.leave(job)
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
            job.attempts, job.retries, job.device_faults, job.taken, job.suspect = 0, 0, 0, 0, poisoned
            self.wait(job)

    @rule(place=st.sampled_from(["waiting:normal", "waiting:low.again", "running", "delayed", "expiring", "dead"]))
    def leave_an_id_without_a_record(self, place: str) -> None:
        # Where somebody else has put a key of another type before, there is nothing to add to.
        with contextlib.suppress(redis.ResponseError):
            self.client.zadd(f"{self.namespace}:{place}", {f"stray-{place}": 1})

    @rule(key=st.sampled_from(["job:stray-running", "suspects:other", "keeper", "dead", "expiring", "waiting:high"]))
    def leave_a_key_of_another_type(self, key: str) -> None:
        # None of the model's jobs is in these: what was there is whoever's who replaced it.
        self.client.delete(f"{self.namespace}:{key}")
        self.client.geoadd(f"{self.namespace}:{key}", [1, 1, "x"]) if key == "suspects:other" else self.client.rpush(
            f"{self.namespace}:{key}", "x"
        )

    @rule(masks=st.integers(1, 3))
    def let_the_bucket_be_filled(self, masks: int) -> None:
        """As if so much time had passed for it alone."""
        self.bucket.owed -= masks
        if self.bucket.paused is not None:
            self.bucket.paused -= masks
        for place in ("buckets", "paused"):
            self.client.zadd(f"{self.namespace}:{place}", {BUCKET: -masks * MASK_MS}, xx=True, incr=True)

    @rule(hours=st.integers(1, 3))
    def put_redis_clock_back(self, hours: int) -> None:
        """All that was written is so much later than Redis's clock then."""
        later = hours * 3_600_000
        seconds, micros = self.client.time()
        clock = f"{self.namespace}:clock"
        # `last` is up to a second old otherwise, by which what is due would be late. Where no script has run since the
        # clock was last put back, `last` is ahead of it.
        now = seconds * 1000 + micros // 1000 + int(self.client.hget(clock, "ahead") or 0)
        self.client.hset(clock, "last", max(now, int(self.client.hget(clock, "last") or 0)) + later)
        self.client.hincrby(clock, "sequence", later * 1000)
        with self.client.pipeline(transaction=False) as pipeline:
            for place in (*PLACES, "buckets", "paused"):
                key = f"{self.namespace}:{place}"
                if self.client.type(key) == b"zset":
                    for name, score in self.client.zrange(key, 0, -1, withscores=True):
                        # The numbers of waiting jobs are microseconds.
                        pipeline.zadd(key, {name: score + later * (1000 if place.startswith("queue") else 1)})
            # The numbers of jobs that have left the queue and may come back, and when they met their first fault.
            for job_id in self.jobs:
                for name, step in (("number", later * 1000), ("first_fault_at", later)):
                    if self.client.hexists(f"{self.namespace}:job:{job_id}", name):
                        pipeline.hincrby(f"{self.namespace}:job:{job_id}", name, step)
            pipeline.execute()

    @rule()
    def sweep(self) -> None:
        # The short leases and delays are over by Redis's clock, too.
        time.sleep(3 * GONE_S)
        swept = self.ledger.sweep(sweeper="k", lock_s=60, max_attempts=MAX_ATTEMPTS, limit=100)
        lapsed = poisoned = 0
        # Lapsed ones first, in any order, then those that are due.
        for job_id, job in sorted(self.jobs.items(), key=lambda item: item[1].state, reverse=True):
            if job.state == "running" and job_id in self.lapsing:
                lapsed += 1
                if job.attempts >= MAX_ATTEMPTS and not job.cancelling:
                    poisoned += 1
                    job.end("failed")
                    continue
                job.suspect = True
            elif job.state != "delayed":
                continue
            self.wait(job)
        self.resume()
        assert (swept.held, swept.lapsed, swept.poisoned) == (True, lapsed, poisoned)
        backlog = self.ledger.backlog()
        for model, counts in (("", backlog.models["default"]), ("m", backlog.models.get("m", ModelBacklog()))):
            states = Counter(job.state for job in self.jobs.values() if MODELS[job.job_id] == model)
            assert counts == ModelBacklog(states["waiting"], states["running"], states["delayed"])
            queued = sum(self.client.llen(key) for key in queue_keys(self.namespace, model))
            assert queued >= self.startable(model)
        assert backlog.waiting == sum(counts.waiting for counts in backlog.models.values())
        assert all("stray" in str(stray) or not stray.job_id for stray in swept.strays), swept.strays

    @invariant()
    def every_job_is_in_the_one_place_that_its_state_names(self) -> None:
        places: dict[str, list[str]] = {}
        sets = {place: place if place in ("running", "delayed") else "waiting" for place in PLACES}
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


def _retried_with_a_bucket(machine: LedgerMachine) -> None:
    for _ in range(3):
        machine.claim(False, False, "")
    for which in range(3):
        machine.retry(which)
        machine.sweep()
    machine.let_the_bucket_be_filled(1)
    for _ in range(6):
        machine.claim(False, False, "")


def _filled_again(machine: LedgerMachine) -> None:
    for _ in range(4):
        machine.claim(False, False, "")
    machine.put_redis_clock_back(2)
    machine.let_the_bucket_be_filled(3)
    machine.sweep()
    for _ in range(4):
        machine.claim(False, False, "")


def _queued_of_two_models(machine: LedgerMachine) -> None:
    for _ in range(2):
        machine.claim(False, False, "")
    for job_id in "fe":
        machine.submit(job_id, False)


def _running_of_two_models(machine: LedgerMachine) -> None:
    machine.claim(False, False, "")
    machine.submit("f", False)
    for model in ("m", "m", ""):
        machine.claim(False, False, model)
    for which in (2, 1):
        machine.finish(which, True, False, None)
    for model in ("m", ""):
        machine.claim(False, False, model)


def _held_back_while_others_take_turns(machine: LedgerMachine) -> None:
    machine.submit("h", False)
    machine.claim(False, False, "")
    assert machine.jobs["a"].state == "running"
    for _ in range(5):
        machine.claim(False, False, "")
        machine.finish(0, False, False, None)
        machine.requeue("h", False)
    machine.finish(len(machine.claims) - 1, False, False, None)
    for _ in range(6):
        machine.claim(False, False, "")
        machine.finish(0, False, False, None)
        for job_id in "abh":
            machine.requeue(job_id, False)


def _later_ones_of_two_models(machine: LedgerMachine) -> None:
    for job_id in "bcdg":
        machine.cancel(job_id)
    for job_id in "fh":
        machine.submit(job_id, False)
    for model, job_id in (("m", "f"), ("", "a"), ("", "h")):
        machine.claim(False, False, model)
        machine.finish(0, False, False, None)
        machine.requeue(job_id, False)
    machine.claim(False, False, "")
    machine.finish(0, False, False, None)
    # A later one's turn is the present one of its model, and others that have this turn come by their names.
    for job_id in "cg":
        machine.requeue(job_id, False)
    machine.claim(False, False, "")
    machine.claim(False, False, "m")
    assert [job_id for job_id, job in machine.jobs.items() if job.state == "running"] == ["g", "h"]


@pytest.mark.parametrize(
    "walk",
    [
        _retried_with_a_bucket,
        _filled_again,
        _queued_of_two_models,
        _running_of_two_models,
        _held_back_while_others_take_turns,
        _later_ones_of_two_models,
    ],
)
def test_the_ledger_behaves_as_its_model_where_chance_seldom_leads(
    services: LocalServices, walk: Callable[[LedgerMachine], None]
) -> None:
    """At the limits of a tenant, and in the order of turns."""
    LedgerMachine.url = services.redis.url
    machine = LedgerMachine()
    machine.begin()
    for job_id in "dg":
        machine.submit(job_id, False)
    walk(machine)
    machine.every_job_is_in_the_one_place_that_its_state_names()
    machine.teardown()
