"""Batches: restarted, resumed, cancelled, full; with a real worker where jobs run."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click
import pytest
import redis
from click.testing import CliRunner

from claims import claim_job
from command_line import run_command
from maskscore import BatchCounts, BatchNotFound, Client, ClientSettings, Job, JobState, QueueFull, WaitTimeout
from maskscore.cli.batch import batch_command
from maskscore.cli.job_commands import cancel_command, results_command, status_command, wait_command
from maskscore.devstack import LocalServices
from maskscore.ledger import Ledger
from maskscore.masks import encode_mask
from maskscore.schema.result import Failure
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from worker_process import start_worker


@pytest.fixture
def namespace() -> str:
    return f"batch-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def client(services: LocalServices, namespace: str) -> Iterator[Client]:
    """A client of a namespace that no worker serves."""
    with Client(ClientSettings(redis_url=services.redis.url, namespace=namespace)) as client:
        yield client


def jobs(count: int) -> list[Job]:
    document = {"image": "s3://some/a.png", "masks": []}
    return [Job.model_validate({**document, "job_id": f"j{n}"}) for n in range(count)]


def end(services: LocalServices, namespace: str, *job_ids: str) -> None:
    """Run jobs as a worker would, but for the scores."""
    ledger = Ledger(redis.Redis.from_url(services.redis.url), namespace=namespace, ttl_s=60)
    for job_id in job_ids:
        claim = claim_job(ledger, job_id)
        ledger.finish(claim, error=Failure(code="image_not_found", message="no such image"))


def test_a_producer_that_died_runs_again_and_doubles_nothing(client: Client, services: LocalServices) -> None:
    client.submit_many(jobs(300)[:120], batch_id="nightly")
    batch = client.submit_many(jobs(300), batch_id="nightly")
    assert batch.counts() == BatchCounts(queued=300)
    assert list(batch.job_ids()) == [f"j{n}" for n in range(300)]
    assert [handle.job_id for handle in islice(batch, 3)] == ["j0", "j1", "j2"]


def test_results_go_on_in_another_process_where_a_reader_stopped(
    client: Client, services: LocalServices, namespace: str
) -> None:
    client.submit_many(jobs(6), batch_id="b")
    end(services, namespace, "j3", "j1", "j4")
    first = client.batch("b").as_completed(timeout=120, reader="pipeline")
    assert [next(first).job_id for _ in range(2)] == ["j3", "j1"]
    first.close()  # it has not said that it is done with j1
    end(services, namespace, "j0")
    with Client(client.settings) as again:
        rest = again.batch("b").as_completed(timeout=120, reader="pipeline")
        assert [next(rest).job_id for _ in range(3)] == ["j1", "j4", "j0"]
        end(services, namespace, "j2", "j5")
        assert [result.job_id for result in rest] == ["j2", "j5"]
        assert list(again.batch("b").as_completed(timeout=120, reader="pipeline")) == []
        everything = {result.job_id: result.state for result in again.batch("b").as_completed(timeout=120)}
    assert everything == {f"j{n}": JobState.FAILED for n in range(6)}


def test_a_requeued_job_is_told_of_when_it_has_ended_again(
    client: Client, services: LocalServices, namespace: str
) -> None:
    batch = client.submit_many(jobs(2), batch_id="b")
    end(services, namespace, "j0", "j1")
    assert client.requeue("j0") is JobState.QUEUED
    assert batch.counts() == BatchCounts(queued=1, failed=1)
    results = batch.as_completed(timeout=120)
    assert next(results).job_id == "j1"
    end(services, namespace, "j0")
    assert [result.job_id for result in results] == ["j0"]


def test_a_batch_is_cancelled_whole(client: Client, services: LocalServices, namespace: str) -> None:
    batch = client.submit_many(jobs(250))
    end(services, namespace, "j7")
    assert batch.cancel() == BatchCounts(cancelled=249, failed=1)
    assert batch.wait(timeout=120).total == 250


def test_waiting_has_an_end_and_unknown_batches_are_said_to_be(client: Client) -> None:
    batch = client.submit_many(jobs(3))
    with pytest.raises(WaitTimeout, match="3 of the 3 jobs"):
        batch.wait(timeout=0.05)
    with pytest.raises(BatchNotFound, match="nobodys"):
        client.batch("nobodys").counts()
    with pytest.raises(BatchNotFound):
        client.batch("nobodys").cancel()


def test_a_full_queue_is_said_with_its_depth_and_what_was_taken_stays(services: LocalServices, namespace: str) -> None:
    settings = ClientSettings(redis_url=services.redis.url, namespace=namespace, queue_limit=5)
    with Client(settings) as client:
        with pytest.raises(QueueFull, match="5 jobs are queued") as caught:
            client.submit_many(jobs(8), batch_id="b")
        assert caught.value.depth == 5
        with pytest.raises(QueueFull):
            client.submit(jobs(9)[8])
        client.cancel_many(["j0", "j1", "j2"])
        assert client.submit_many(jobs(8), batch_id="b").counts() == BatchCounts(queued=5, cancelled=3)


def test_the_same_content_is_the_same_job(client: Client, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"one")
    masks = [{"id": "1", "segmentation": [[0, 0, 9, 0, 9, 9]]}]
    job = Job.model_validate({"image": image.as_uri(), "masks": masks})
    again = Job.model_validate({"image": image.as_uri(), "masks": masks, "priority": "low", "expires_in": 60})
    first = client.submit(job, content_id=True)
    assert client.submit(again, content_id=True).job_id == first.job_id
    batch = client.submit_many([job, again], content_id=True)
    assert list(batch.job_ids()) == [first.job_id]
    other = job.model_copy(update={"options": job.options.model_copy(update={"top_k": 3})})
    assert client.submit(other, content_id=True).job_id != first.job_id
    image.write_bytes(b"another")
    assert client.submit(job, content_id=True).job_id != first.job_id
    # What is not there is for the worker to say, once.
    image.unlink()
    missing = client.submit_many([job, again, other], content_id=True)
    assert len(missing) == 2


def test_the_commands_for_batches_and_dead_letters(services: LocalServices, namespace: str, tmp_path: Path) -> None:
    """A real worker, an object store that does not answer, and what a person does then."""
    scene = draw_scene(770_001)
    masks = [{"id": mask.id, "segmentation": encode_mask(mask.mask).model_dump()} for mask in scene.masks[:1]]
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": namespace,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_BUCKETS": "*",
        "MASKSCORE_MAX_RETRIES": "1",
        "MASKSCORE_RETRY_FIRST_S": "0.05",
        "MASKSCORE_LOG_LEVEL": "INFO",
    }
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}

    def run(*arguments: str, expect: int = 0, stdin: str = "") -> str:
        done = run_command(*arguments, environment=environment, stdin=stdin)
        assert done.returncode == expect, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    document = {"image": "s3://pictures/a.png", "masks": masks, "job_id": "lost", "options": {"prompts": "demo"}}
    file = tmp_path / "jobs.jsonl"
    file.write_text(json.dumps(document) + "\n")
    assert "1 job submitted, batch night" in run("submit", str(file), "--batch-id", "night")
    assert "1 queued" in run("batch", "show", "night")
    with start_worker({**environment, **nowhere}) as worker:
        assert "1 failed" in run("batch", "wait", "night", "--timeout", "60", expect=1)
        listed = run("dead", "list")
        assert "lost" in listed
        assert "storage_unavailable" in listed
        assert max(map(len, listed.splitlines())) <= 80
        shown = run("dead", "show", "lost")
        assert shown.count("storage_unavailable") == 3
        assert "1 inline masks" in shown
        letter = json.loads(run("dead", "show", "lost", "--json"))
        assert (letter["retries"], len(letter["reasons"]), letter["document"]["job_id"]) == (1, 2, "lost")
        os.kill(worker.pid, signal.SIGTERM)
    assert "queued again" in run("dead", "requeue", "lost")
    assert "no dead letters" in run("dead", "list")
    run("dead", "requeue", "lost", expect=5)
    assert "1 cancelled" in run("batch", "cancel", "night")
    assert "cancelled" in run("batch", "results", "night", "--json", expect=1)
    run("batch", "show", "day", expect=5)
    run("dead", "drop", "--all", expect=5)


def test_the_commands_for_jobs_take_batches(client: Client, services: LocalServices, namespace: str) -> None:
    def run(command: click.Command, *arguments: str, expect: int = 0, stdin: str = "") -> str:
        environment = {**services.environment(), "MASKSCORE_NAMESPACE": namespace, "COLUMNS": "80"}
        done = CliRunner(env=environment).invoke(command, arguments, input=stdin)
        assert done.exit_code == expect, (done.output, done.exception)
        return done.output

    assert "no batches" in run(batch_command, "list")
    assert client.batches() == []
    client.submit_many(jobs(4)[2:], batch_id="early")
    client.submit_many(jobs(3)[:2], batch_id="late")
    client.submit_many([Job.model_validate({"image": "s3://a/a.png", "masks": [], "job_id": "one"})], batch_id="other")
    assert {batch.batch_id: batch.counts for batch in client.batches()} == {
        "early": BatchCounts(queued=2),
        "late": BatchCounts(queued=2),
        "other": BatchCounts(queued=1),
    }
    listed = [json.loads(line) for line in run(batch_command, "list", "--json").splitlines()]
    assert [(batch["batch_id"], batch["queued"]) for batch in listed] == [("other", 1), ("late", 2), ("early", 2)]
    assert "and 2 older ones" in run(batch_command, "list", "--limit", "1")
    shown = run(status_command, "early", "one")
    assert "batch early: 2 jobs: 2 queued" in shown
    assert "one" in shown
    assert "j2" not in shown
    end(services, namespace, "j2")
    results = run(results_command, "early", "--json", expect=1)
    assert json.loads(results.splitlines()[0])["job_id"] == "j2"
    assert "not ended yet: 1 job" in results
    with pytest.raises(AssertionError, match="WaitTimeout"):
        run(wait_command, "early", "--timeout", "0")
    assert "1 failed, 1 cancelled" in run(cancel_command, "early")
    assert "1 failed, 1 cancelled" in run(wait_command, "early", expect=1)
    cancelled = run(cancel_command, "-", stdin="one\nlate\n")
    assert "batch late: 2 jobs: 2 cancelled" in cancelled
    with pytest.raises(AssertionError, match="JobNotFound"):
        run(status_command, "earl")


def test_endings_are_read_while_others_submit_and_notes_are_kept(
    services: LocalServices, namespace: str, client: Client
) -> None:
    batch = client.batch("growing")
    assert batch.endings() == []
    assert batch.note("place") is None
    client.submit_many(jobs(3), batch_id="growing")
    end(services, namespace, "j1")
    (first,) = batch.endings(wait_s=1)
    assert batch.endings(after=first.event.event_id) == []
    result = batch.result_of(first)
    assert result is not None
    assert (result.job_id, result.state) == ("j1", JobState.FAILED)
    batch.set_note("place", first.event.event_id)
    end(services, namespace, "j0", "j2")
    later = client.batch("growing").endings(after=batch.note("place") or "", limit=1)
    assert [ending.event.job_id for ending in later] == ["j0"]
    # What is queued again ends once more: its first end does not count any more.
    assert client.requeue("j1") is JobState.QUEUED
    end(services, namespace, "j1")
    endings = batch.endings()
    assert [ending.event.job_id for ending in endings] == ["j1", "j0", "j2", "j1"]
    assert [batch.result_of(ending) is None for ending in endings] == [True, False, False, False]
    assert batch.counts().total == 3
