"""Workers that are asked to stop in a shard, and one that is frozen in it for longer than its lease."""

from __future__ import annotations

import re
import signal
import threading

import pytest

from chaos.chaos_profile import PROFILE
from chaos.deployment import Deployment
from chaos.fleet import Worker
from chaos.scenario import Record, Row
from chaos.shard_corpus import ShardCorpus
from chaos.shard_faults import ShardRun
from command_line import run_command
from maskscore import JobState
from maskscore.parts import part_names
from waiting import until

pytestmark = pytest.mark.timeout(900)

_SHARDS = 6 if PROFILE.name == "short" else 40


class FirstPart:
    """The worker that first stores a part of this number, and the shard's name; it waits until it may ``go_on``."""

    def __init__(self, number: int = 0) -> None:
        self._masks = re.compile(rf"PUT /.*/masks/(.*)-{number:05d}\.parquet")
        self._lock = threading.Lock()
        self.worker: Worker | None = None
        self.name = ""
        self.go_on = threading.Event()

    def at(self, request: str, worker: Worker) -> bool:
        stored = self._masks.match(request)
        with self._lock:
            if stored is None or self.worker is not None:
                return True
            self.worker, self.name = worker, stored[1]
        return self.go_on.wait(PROFILE.patience_s)

    def wait(self) -> Worker:
        until(lambda: self.worker is not None, "a worker stores a part")
        assert self.worker is not None
        return self.worker


def test_sigterm_in_a_shard(deployment: Deployment, shard_corpus: ShardCorpus, record: Record) -> None:
    with ShardRun(deployment, shard_corpus, "shard-sigterm", _SHARDS) as run:
        stored = FirstPart()
        run.at = stored.at
        run.submit()
        worker = stored.wait()

        def draining() -> bool:
            reports = [found.report for found in deployment.observer.workers()]
            return any(report.name == worker.name and report.state == "draining" for report in reports)

        held = len(run.held(worker))
        worker.signal(signal.SIGTERM)
        until(draining, "the worker drains")
        stored.go_on.set()
        ended = run.wait()
        gone = worker.wait_gone(PROFILE.patience_s)
        outcome = run.outcome()
        taken_over = deployment.observer.status(f"{run.batch_id}-{stored.name}")
    deployment.say(f"SIGTERM to worker {worker.pid}, which had {held} shards in hand; ended: {gone}")
    record(Row("SIGTERM in a shard", outcome))
    assert ended
    assert gone
    run.check(outcome)
    assert taken_over.worker != worker.name
    # Given back after its part, and that costs no attempt and repeats no part.
    assert set(outcome.attempts) == {1}
    assert run.replaced == []


def test_a_worker_that_is_frozen_in_a_shard_commits_nothing(
    deployment: Deployment, shard_corpus: ShardCorpus, record: Record
) -> None:
    with ShardRun(deployment, shard_corpus, "shard-frozen", _SHARDS) as run:
        stored = FirstPart()
        run.at = stored.at
        run.submit()
        worker = stored.wait()
        held = [status.job_id for status in run.held(worker)]
        worker.signal(signal.SIGSTOP)
        ended = run.wait()
        deployment.say(f"worker {worker.pid} is frozen with {len(held)} shards in hand, which others have ended")
        late: set[str] = set()

        def note(request: str, by: Worker) -> bool:
            if request.startswith("PUT") and by is worker:
                late.add(request.rpartition("/")[2])
            return True

        run.at = note
        worker.signal(signal.SIGCONT)
        stored.go_on.set()

        def dropped() -> bool:
            log = worker.log.read_text("utf-8", "replace")
            return all(
                re.search(rf"job {job_id} stopped here: lost|job {job_id}: another attempt", log) for job_id in held
            )

        until(dropped, "the worker has noticed that its shards are others'")
        outcome = run.outcome()
        statuses = deployment.observer.statuses(held)
    deployment.say(f"it stored {len(late)} parts after it was woken, and committed none")
    record(Row("SIGSTOP in a shard, SIGCONT", outcome))
    assert ended
    run.check(outcome)
    assert all(status.worker != worker.name for status in statuses)
    assert len(late) <= len(held)


def test_a_cancelled_shard_keeps_its_parts_until_another_document_replaces_them(
    deployment: Deployment, shard_corpus: ShardCorpus, record: Record
) -> None:
    with ShardRun(deployment, shard_corpus, "shard-cancel", 0) as run:
        stored = FirstPart(1)
        run.at = stored.at
        run.submit()
        stored.wait()
        (shard,) = run.shards
        cancelled = run_command("cancel", shard.shard_id, environment=deployment.environment)
        stored.go_on.set()
        ended = run.wait()
        status = deployment.observer.status(shard.shard_id)
        kept = run.objects()
        run.shards = [shard.model_copy(update={"part_images": 100})]
        deployment.client.submit_shard(run.shards[0], retry_failed=True)
        again = run.wait()
        outcome = run.outcome()
    record(Row("a shard cancelled, run again otherwise", outcome))
    assert cancelled.returncode == 0, cancelled.stderr
    assert (ended, again) == (True, True)
    assert (status.state, status.error and status.error.code) == (JobState.CANCELLED, "cancelled")
    # It was told with the part that it committed, and stopped there.
    assert status.progress is not None
    assert status.progress.parts == 2
    assert kept == {name for part in range(2) for name in part_names(shard.name, part)}
    # What is left of the parts before would be read as a result, and be there twice.
    run.check(outcome)
