"""Jobs, messages and results that release 0 has left in Redis, met by a worker and a client of this release."""

from __future__ import annotations

import json
import subprocess
import uuid
from pathlib import Path

import boto3
import pytest

from in_memory_files import image_file
from maskscore import Client, ClientSettings, JobState
from maskscore.devstack import LocalServices
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from release_0 import NO_HISTORY, install_release_0
from required_parts import require
from worker_process import start_worker

# Run by release 0: its producer submits, and a worker of it that is gone since has brought the jobs into their states.
LEAVE_JOBS = """
import json, sys

from maskscore import Client, ClientSettings, Job, JobResult, JobState, Mask, ScoringOptions
from maskscore.connection import connect
from maskscore.document import pack
from maskscore.ledger import Ledger, new_token
from maskscore.result import Failure

redis_url, namespace, image, names = *sys.argv[1:4], json.loads(sys.argv[4])
mask = Mask(id="1", segmentation=[[4, 4, 60, 4, 60, 60, 4, 60]])
settings = ClientSettings(redis_url=redis_url, namespace=namespace)
ledger = Ledger(connect(settings), namespace=namespace, ttl_s=600)


def job(name):
    priority = "high" if name == "urgent" else "normal"
    return Job(job_id=name, image=image, masks=[mask], options=ScoringOptions(prompts="demo"), priority=priority)


def claim(name, lease_s=600):
    claim = ledger.claim(name, token=new_token(), worker="gone", lease_s=lease_s)
    assert not isinstance(claim, str), claim
    return claim


with Client(settings) as client:
    client.submit_many([job(name) for name in names], batch_id="left")
    failure = Failure(code="storage_unavailable", message="The store does not answer.")
    retry = {"worker": "gone", "max_retries": 9, "retry_for_s": 600}
    assert ledger.retry(claim("delayed"), failure, delay_s=0.01, **retry) == "delayed"
    claim("running", lease_s=0.01)
    result = JobResult(job_id="succeeded", state=JobState.SUCCEEDED, worker="gone")
    ledger.finish(claim("succeeded"), result=pack(result))
    ledger.finish(claim("failed"), error=Failure(code="image_not_found", message="There is none."))
    ledger.finish(claim("dead"), error=failure, dead_letter=True)
    client.handle("cancelled").cancel()
"""
NAMES = ("queued", "urgent", "also queued", "delayed", "running", "succeeded", "failed", "dead", "cancelled")


@pytest.fixture(scope="module")
def python_of_release_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = install_release_0(tmp_path_factory.mktemp("release") / "0")
    require(f"release 0: {NO_HISTORY}", python, optional=True)
    assert python is not None
    return python


def test_what_release_0_has_left_is_taken_over(services: LocalServices, python_of_release_0: Path) -> None:
    namespace = f"release-0-{uuid.uuid4().hex[:8]}"
    services.create_bucket("of-release-0")
    scene = image_file(draw_scene(1).image)
    boto3.session.Session().client("s3").put_object(Bucket="of-release-0", Key="scene.png", Body=scene)
    names = [name.replace(" ", "-") for name in NAMES]
    command = [str(python_of_release_0), "-P", "-c", LEAVE_JOBS, services.redis.url, namespace]
    left = subprocess.run(
        [*command, "s3://of-release-0/scene.png", json.dumps(names)], capture_output=True, text=True, check=False
    )
    assert left.returncode == 0, left.stderr
    worker = {
        "MASKSCORE_NAMESPACE": namespace,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_BUCKETS": "of-release-0",
    }
    with Client(ClientSettings(redis_url=services.redis.url, namespace=namespace)) as client:
        batch = client.batch("left")
        before = {status.job_id: status.state for status in client.statuses(names)}
        assert before.pop("running") is JobState.RUNNING
        assert [before.pop(name) for name in ("succeeded", "failed", "dead", "cancelled")] == [
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.FAILED,
            JobState.CANCELLED,
        ]
        assert set(before.values()) == {JobState.QUEUED}
        with start_worker(worker):
            counts = batch.wait(timeout=300)
            results = {result.job_id: result for result in batch.as_completed(timeout=60)}
            assert [letter.status.job_id for letter in client.dead_letters()] == ["dead"]
            assert client.requeue("dead") is JobState.QUEUED
            assert client.wait("dead", timeout=300).components[0].s_pos is not None
    assert (counts.succeeded, counts.failed, counts.cancelled) == (6, 2, 1)
    assert set(results) == set(names)
    for name in ("queued", "urgent", "also-queued", "delayed", "running"):
        assert results[name].components[0].s_pos is not None
        assert results[name].worker != "gone"
    assert results["succeeded"].worker == "gone"
    assert results["running"].attempts == 2
