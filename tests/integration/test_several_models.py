"""One service, two models: each worker takes the jobs that ask for its model, and what nobody serves is said."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from command_line import run_command
from maskscore import Client, ClientSettings, Job, JobState, Mask, ScoringOptions, WaitTimeout
from maskscore.devstack import LocalServices
from maskscore.masks import encode_mask
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from sigmoid_model import write_sigmoid_model
from worker_process import start_worker

SCENE = draw_scene(770_001)
MASKS = [Mask.model_validate({"id": mask.id, "segmentation": encode_mask(mask.mask)}) for mask in SCENE.masks[:2]]


@pytest.fixture(scope="module")
def environment(services: LocalServices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What reaches two workers, one without a name and one that serves ``biased``, with other weights."""
    reach = {**services.environment(), "MASKSCORE_NAMESPACE": f"models-{uuid.uuid4().hex[:8]}"}
    worker = {**reach, "MASKSCORE_PROMPTS": "demo", "MASKSCORE_FILE_ROOTS": str(tmp_path_factory.getbasetemp())}
    named = {
        "MASKSCORE_MODEL_NAME": "biased",
        "MASKSCORE_WEIGHTS": str(write_sigmoid_model(tmp_path_factory.mktemp("biased") / "weights")),
    }
    with start_worker({**worker, "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS)}), start_worker({**worker, **named}):
        yield reach


@pytest.fixture(scope="module")
def client(environment: dict[str, str]) -> Iterator[Client]:
    settings = ClientSettings(
        redis_url=environment["MASKSCORE_REDIS_URL"], namespace=environment["MASKSCORE_NAMESPACE"]
    )
    with Client(settings) as client:
        yield client


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("images") / "scene.png"
    Image.fromarray(SCENE.image).save(path)
    return path.as_uri()


def job_for(model: str | None, image: str, **fields: Any) -> Job:
    options = ScoringOptions(prompts="demo", model=model)
    return Job.model_validate({"image": image, "masks": MASKS, "options": options, **fields})


def test_jobs_go_to_the_worker_of_their_model(client: Client, image: str) -> None:
    jobs = [job_for(model, image) for model in (None, "biased") * 3]
    batch = client.submit_many(jobs)
    results = {result.job_id: result for result in batch.as_completed(60)}
    used: dict[str | None, set[tuple[str, str | None]]] = {}
    for job in jobs:
        result = results[job.job_id]
        assert result.model is not None
        assert (result.state, result.model.name) == (JobState.SUCCEEDED, job.options.model)
        used.setdefault(result.model.name, set()).add((result.model.weights_digest, result.worker))
    ((plain, one),), ((biased, other),) = used[None], used["biased"]
    assert plain != biased
    assert one != other
    # The same question to the other model is another job.
    again = client.rescore(batch, model="default")
    assert {result.model.weights_digest for result in again.as_completed(60) if result.model} == {plain}


def test_a_model_that_nobody_serves_is_accepted_and_everybody_is_told(
    client: Client, environment: dict[str, str], image: str, tmp_path: Path
) -> None:
    masks = tmp_path / "masks.json"
    masks.write_text(json.dumps([mask.model_dump(mode="json") for mask in MASKS]))
    sentence = "No live worker serves the model 'absent'"
    given = ("--image", image, "--masks", str(masks), "--prompts", "demo")
    done = run_command("submit", *given, "--model", "absent", environment=environment)
    assert done.returncode == 0, done.stderr
    assert sentence in done.stderr
    assert "live workers serve biased, default" in done.stderr
    job_id = done.stdout.strip()
    # Others get their turn meanwhile, and nobody takes this one.
    assert client.submit(job_for(None, image)).wait(60).model is not None
    assert client.status(job_id).state is JobState.QUEUED
    with pytest.raises(WaitTimeout, match=sentence):
        client.wait(job_id, timeout=0.1)
    assert (client.no_worker(), client.no_worker(None, "biased")) == (None, None)

    looked = run_command("doctor", "--json", "--no-worker", environment=environment)
    findings = {finding["name"]: finding for finding in map(json.loads, looked.stdout.splitlines())}
    assert "absent (1 job)" in findings["models"]["sentence"]
    assert "(biased)" in findings["workers"]["sentence"]
    top = run_command("top", "--once", environment=environment)
    assert max(map(len, top.stdout.splitlines())) <= 80
    (line,) = [line for line in top.stdout.splitlines() if "absent" in line]
    assert line.split() == [
        "models",
        "absent",
        "1",
        "waiting",
        "·",
        "0",
        "running",
        "·",
        "0",
        "delayed",
        "·",
        "no",
        "worker",
    ]
    overview = json.loads(run_command("top", "--json", "--once", environment=environment).stdout)
    assert overview["models"]["absent"].items() >= {"waiting": 1, "running": 0, "delayed": 0, "workers": 0}.items()
    assert overview["models"]["absent"]["oldest_waiting_s"] > overview["models"]["biased"]["oldest_waiting_s"] == 0

    # Mistaken for another: the same work with a model that is there.
    again = run_command("rescore", job_id, "--model", "biased", "--wait", "--json", environment=environment)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["model"]["name"] == "biased"
    assert client.cancel(job_id) is JobState.CANCELLED
    assert client.requeue(job_id) is JobState.QUEUED
    assert client.backlog().models["absent"].waiting == 1
    assert client.cancel(job_id) is JobState.CANCELLED
    misspelt = run_command("submit", *given, "--model", "a:b", environment=environment)
    assert (misspelt.returncode, "model" in misspelt.stderr) == (2, True)
