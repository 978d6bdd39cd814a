"""The whole service: a client, a worker process, Redis and S3."""

from __future__ import annotations

import io
import json
import os
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image

from command_line import run_command
from distinct_masks import distinct_masks
from maskscore import (
    Client,
    ClientSettings,
    Job,
    JobConflict,
    JobFailed,
    JobNotFound,
    JobState,
    Mask,
    PayloadTooLarge,
    PromptSet,
    ResultUnavailable,
    ScoringOptions,
    ServiceUnavailable,
    Thresholds,
    WaitTimeout,
)
from maskscore.devstack import LocalServices
from maskscore.masks import encode_mask
from maskscore.prompts import load_builtin
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import Scene, draw_scene
from worker_process import start_worker

DEMO = ScoringOptions(prompts="demo")


@pytest.fixture(scope="module")
def client(services: LocalServices, demo_worker: dict[str, str]) -> Iterator[Client]:
    services.create_bucket("results")
    settings = ClientSettings(redis_url=services.redis.url, namespace=demo_worker["MASKSCORE_NAMESPACE"])
    with Client(settings) as client:
        yield client


@pytest.fixture
def idle_client(services: LocalServices) -> Iterator[Client]:
    """A client of a namespace that no worker serves."""
    settings = ClientSettings(redis_url=services.redis.url, namespace=f"idle-{uuid.uuid4().hex[:8]}")
    with Client(settings) as client:
        yield client


@pytest.fixture(scope="module")
def scene() -> Scene:
    return draw_scene(770_001)


@pytest.fixture(scope="module")
def image(services: LocalServices, scene: Scene) -> str:
    services.create_bucket("service")
    buffer = io.BytesIO()
    Image.fromarray(scene.image).save(buffer, "PNG")
    boto3.client("s3").put_object(Bucket="service", Key="scene 1+é.png", Body=buffer.getvalue())
    return "s3://service/scene 1+é.png"


@pytest.fixture(scope="module")
def masks(scene: Scene) -> list[Mask]:
    return [
        Mask.model_validate({"id": mask.id, "segmentation": encode_mask(mask.mask), "stability_score": n / 10})
        for n, mask in enumerate(scene.masks)
    ]


def make_job(image: str, masks: Any, **fields: Any) -> Job:
    return Job.model_validate({"image": image, "masks": masks, "options": DEMO, **fields})


def test_the_snippet_of_the_readme(client: Client, image: str, masks: list[Mask], scene: Scene) -> None:
    result = client.submit(make_job(image, masks)).wait(timeout=60)
    assert result.state is JobState.SUCCEEDED
    assert [c.id for c in result.components] == [mask.id for mask in scene.masks]
    assert [c.upstream["stability_score"] for c in result.components] == [n / 10 for n in range(len(masks))]
    by_kind: dict[str, list[float]] = {"object": [], "background": [], "fragment": []}
    for component, mask in zip(result.components, scene.masks, strict=True):
        assert component.p_pos_sum is not None
        by_kind[mask.kind].append(component.p_pos_sum)
    assert min(by_kind["object"]) > max(by_kind["background"])
    assert result.model is not None
    assert result.model.weights_digest.startswith("sha256:")
    assert result.prompts is not None
    assert result.prompts.digest == load_builtin("demo").digest
    assert result.timings is not None
    assert result.timings.total > 0
    assert result.attempts == 1
    assert result.worker
    assert result.submitted_at is not None
    assert result.finished_at is not None
    assert result.submitted_at < result.finished_at
    assert client.get(result.job_id) == result


def test_many_jobs_come_back_each_with_its_own_masks(client: Client, image: str, masks: list[Mask]) -> None:
    jobs = [make_job(image, masks[n % len(masks) :], job_id=f"service-many-{n}") for n in range(60)]
    batch = client.submit_many(iter(jobs))
    assert len(batch) == 60
    alone = {c.id: c.p_pos_sum for c in client.submit(make_job(image, masks)).wait(timeout=60).components}
    seen = {}
    for result in client.as_completed(batch, timeout=120):
        seen[result.job_id] = result
        assert result.batch_id == batch.batch_id
        assert {c.id: c.p_pos_sum for c in result.components} == pytest.approx(
            {c.id: alone[c.id] for c in result.components}, abs=1e-5
        )
    assert {job_id: [c.id for c in result.components] for job_id, result in seen.items()} == {
        job.job_id: [mask.id for mask in job.masks if isinstance(mask, Mask)]
        for job in jobs
        if isinstance(job.masks, list)
    }


def test_options_reach_the_scores(client: Client, image: str, masks: list[Mask], scene: Scene) -> None:
    one = [next(mask for mask, drawn in zip(masks, scene.masks, strict=True) if drawn.kind == "object")]
    demo = load_builtin("demo")
    own = PromptSet(name="own", positive=demo.positive[:3], negative=demo.negative[:2], neutral=demo.positive[3:])
    options = ScoringOptions(
        prompts=own,
        thresholds=Thresholds(reject_neg_sum=1, strong_pos_sum=1, accept_pos_sum=1),
        top_k=4,
        embeddings=True,
    )
    (component,) = client.submit(make_job(image, one, options=options)).wait(timeout=60).components
    assert component.semantic_multiplier == 0.5
    assert component.p_pos_sum is not None
    assert component.p_neg_sum is not None
    assert component.p_pos_sum + component.p_neg_sum < 1
    assert component.top_k is not None
    assert [entry.score for entry in component.top_k] == sorted((e.score for e in component.top_k), reverse=True)
    vector = component.embedding_vector()
    assert vector is not None
    assert np.linalg.norm(vector.astype(np.float64)) == pytest.approx(1, abs=1e-2)
    split = make_job(image, one, options=ScoringOptions(prompts="demo", split_components=True, min_area=5))
    assert all(c.part is not None for c in client.submit(split).wait(timeout=60).components)


def test_a_result_kept_as_an_object_leaves_only_the_state_in_redis(
    client: Client, image: str, masks: list[Mask]
) -> None:
    job = make_job(image, masks, result_uri="s3://results/run/")
    result = client.submit(job).wait(timeout=60)
    stored = boto3.client("s3").get_object(Bucket="results", Key=f"run/{job.job_id}.json")["Body"].read()
    assert json.loads(stored)["components"][0]["id"] == masks[0].id
    assert result.components == client.get(job.job_id).components
    boto3.client("s3").delete_object(Bucket="results", Key=f"run/{job.job_id}.json")
    with pytest.raises(ResultUnavailable, match="cannot be read"):
        client.get(job.job_id)


def test_masks_too_large_for_redis_are_spilled_or_refused(client: Client, image: str, masks: list[Mask]) -> None:
    small = client.settings.model_copy(update={"max_document_bytes": 300})
    with Client(small) as refusing, pytest.raises(PayloadTooLarge, match="MASKSCORE_SPILL_URI"):
        refusing.submit(make_job(image, masks))
    spilling_settings = small.model_copy(update={"spill_uri": "s3://service/spilled/"})
    with Client(spilling_settings) as spilling:
        job = make_job(image, masks)
        result = spilling.submit(job).wait(timeout=60)
        assert [c.id for c in result.components] == [mask.id for mask in masks]
        assert result.components[1].upstream == masks[1].upstream
        assert spilling.submit(job).job_id == job.job_id


def test_failed_jobs_raise_with_their_code(client: Client, masks: list[Mask]) -> None:
    handle = client.submit(make_job("s3://service/nothing.jpg", masks))
    with pytest.raises(JobFailed, match="image_not_found") as caught:
        handle.wait(timeout=60)
    assert (caught.value.code, caught.value.job_id) == ("image_not_found", handle.job_id)
    assert client.get(handle.job_id).state is JobState.FAILED


def test_submitting_again_is_the_same_job_and_another_document_a_conflict(
    client: Client, image: str, masks: list[Mask]
) -> None:
    job = make_job(image, masks[:1])
    first = client.submit(job).wait(timeout=60)
    assert client.submit(job).wait(timeout=60) == first
    assert next(iter(client.submit_many([job]))).wait(timeout=60) == first
    with pytest.raises(JobConflict, match=job.job_id):
        client.submit(make_job(image, masks[:2], job_id=job.job_id))


def test_a_job_that_nobody_runs(idle_client: Client) -> None:
    handle = idle_client.submit(make_job("s3://service/a.jpg", []))
    assert handle.status().state is JobState.QUEUED
    with pytest.raises(ResultUnavailable, match="queued"):
        idle_client.get(handle.job_id)
    with pytest.raises(WaitTimeout, match=handle.job_id):
        handle.wait(timeout=0.05)
    assert handle.cancel() is JobState.CANCELLED
    with pytest.raises(JobFailed) as caught:
        handle.wait(timeout=60)
    assert caught.value.code == "cancelled"


def test_unknown_jobs(idle_client: Client) -> None:
    for ask in (idle_client.status, idle_client.get, idle_client.cancel, idle_client.job, idle_client.wait):
        with pytest.raises(JobNotFound):
            ask("nobody")


def test_the_submitted_job_can_be_read_back(idle_client: Client, masks: list[Mask]) -> None:
    job = make_job("s3://service/a.jpg", masks)
    idle_client.submit(job)
    assert idle_client.job(job.job_id) == job


def test_a_redis_that_is_not_there_is_said_to_be() -> None:
    with Client(redis_url="redis://user:secret@127.0.0.1:1/0", redis_timeout_s=1) as nowhere:
        for ask in (lambda: nowhere.submit(make_job("s3://a/b", [])), lambda: nowhere.status("x")):
            with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:1") as caught:
                ask()
            assert "secret" not in str(caught.value)


def test_a_huge_job_does_not_starve_the_rest(client: Client, image: str, masks: list[Mask]) -> None:
    huge = distinct_masks(300 * len(masks))
    first = client.submit(make_job(image, huge))
    small = client.submit_many([make_job(image, masks[:1]) for _ in range(20)])
    small.wait(timeout=120)
    assert first.status().state in (JobState.RUNNING, JobState.QUEUED)
    assert len(first.wait(timeout=240).components) == len(huge)


def test_urgent_jobs_go_first_and_sigterm_finishes_what_runs(
    services: LocalServices, idle_client: Client, image: str, masks: list[Mask]
) -> None:
    jobs = [make_job(image, [], priority=priority) for priority in ("low", "normal", "high", "low", "high")]
    idle_client.submit_many(jobs)
    one_by_one = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": idle_client.settings.namespace,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_BUCKETS": "service",
        "MASKSCORE_CONCURRENCY": "1",
    }
    many = distinct_masks(50 * len(masks))
    with start_worker(one_by_one) as worker:
        handles = [idle_client.handle(job.job_id) for job in jobs]
        ended = [result.job_id for result in idle_client.as_completed(handles, timeout=60)]
        batch = idle_client.submit_many([make_job(image, many) for _ in range(6)])
        next(idle_client.as_completed(batch, timeout=60))
        os.kill(worker.pid, signal.SIGTERM)
    started = {job_id: idle_client.status(job_id).claimed_at for job_id in ended}
    order = sorted(jobs, key=lambda job: started[job.job_id])  # type: ignore[arg-type, return-value]
    assert [job.priority for job in order] == ["high", "high", "normal", "low", "low"]
    states = [status.state for status in idle_client.statuses([handle.job_id for handle in batch])]
    # Nothing is left half done: what was taken is finished, what was not taken still waits.
    assert set(states) <= {JobState.SUCCEEDED, JobState.QUEUED}
    assert JobState.SUCCEEDED in states


def test_a_worker_refuses_a_misspelt_setting() -> None:
    ran = run_command("worker", environment={"MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS), "MASKSCORE_CONCURENCY": "8"})
    assert ran.returncode == 2
    assert "MASKSCORE_CONCURENCY" in ran.stderr
    assert "MASKSCORE_CONCURRENCY" in ran.stderr
