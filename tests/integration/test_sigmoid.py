"""A model with a bias scores each prompt by itself, through a running worker, and everything that reads results."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import run_command
from maskscore import Client, ClientSettings, Job, JobFailed, JobState, Mask, ScoringOptions, SigmoidThresholds
from maskscore.devstack import LocalServices
from maskscore.export import write_jsonl, write_parquet
from maskscore.masks import encode_mask
from maskscore.settings import WorkerSettings
from maskscore_worker.demo.scenes import draw_scene
from maskscore_worker.pipeline import check_weights
from sigmoid_model import BIAS, write_sigmoid_model
from worker_process import start_worker


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sigmoid")


@pytest.fixture(scope="module")
def environment(services: LocalServices, folder: Path) -> Iterator[dict[str, str]]:
    environment = {**services.environment(), "MASKSCORE_NAMESPACE": f"sigmoid-{uuid.uuid4().hex[:8]}"}
    worker = {
        **environment,
        "MASKSCORE_WEIGHTS": str(write_sigmoid_model(folder / "weights")),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_FILE_ROOTS": str(folder),
    }
    with start_worker(worker):
        yield environment


@pytest.fixture(scope="module")
def client(services: LocalServices, environment: dict[str, str]) -> Iterator[Client]:
    settings = ClientSettings(redis_url=services.redis.url, namespace=environment["MASKSCORE_NAMESPACE"])
    with Client(settings) as client:
        yield client


def drawn_job(folder: Path, options: ScoringOptions) -> Job:
    scene = draw_scene(660_000)
    path = folder / "scene.png"
    Image.fromarray(np.asarray(scene.image)).save(path)
    masks = [Mask(id=str(n), segmentation=encode_mask(mask.mask)) for n, mask in enumerate(scene.masks)]
    return Job.model_validate({"image": path.as_uri(), "masks": masks, "options": options})


def test_each_prompt_has_a_probability_of_its_own(client: Client, folder: Path) -> None:
    scale = check_weights(WorkerSettings(weights=folder / "weights", device="cpu")).details["logit_scale"]
    # The demo model is not trained with a bias: its own thresholds are those of its scale.
    thresholds = SigmoidThresholds(fit=0.05, strong_pos=0.5, strong_neg=0.2)
    options = ScoringOptions(prompts="demo", method="cosine", top_k=100)
    cosines = client.submit(drawn_job(folder, options)).wait(timeout=60)
    assert cosines.error is None, cosines.error
    batch = client.rescore([cosines.job_id], method="sigmoid", thresholds=thresholds)
    [result] = batch.as_completed(timeout=60)
    assert (result.state, result.method) == (JobState.SUCCEEDED, "sigmoid")
    assert result.components
    for before, after in zip(cosines.components, result.components, strict=True):
        assert before.s_pos is not None
        assert before.s_neg is not None
        assert after.s_pos is not None
        assert after.s_neg is not None
        assert after.s_pos == pytest.approx(1 / (1 + math.exp(-(scale * before.s_pos + BIAS))), rel=1e-4)
        assert after.s_neg == pytest.approx(1 / (1 + math.exp(-(scale * before.s_neg + BIAS))), rel=1e-4)
        assert (after.s_pos_text, after.s_neg_text) == (before.s_pos_text, before.s_neg_text)
        assert (after.p_pos_sum, after.p_neg_sum) == (None, None)
        assert after.semantic_multiplier == thresholds.multiplier(after.s_pos, after.s_neg)

    lines = folder / "masks.jsonl"
    write_jsonl(client, batch, lines)
    exported = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert [(line["method"], line["p_pos_sum"], line["semantic_multiplier"]) for line in exported] == [
        ("sigmoid", None, component.semantic_multiplier) for component in result.components
    ]
    pytest.importorskip("pyarrow")
    write_parquet(client, batch, folder / "masks.parquet")
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "masks.parquet")
    assert table.column("p_pos_sum").null_count == len(result.components)
    assert table.column("s_pos").to_pylist() == [component.s_pos for component in result.components]


def test_the_other_methods_are_there_too_and_softmax_is_the_default(client: Client, folder: Path) -> None:
    result = client.submit(drawn_job(folder, ScoringOptions(prompts="demo"))).wait(timeout=60)
    assert result.method == "softmax"
    for component in result.components:
        assert component.p_pos_sum is not None
        assert component.p_neg_sum is not None
        assert component.p_pos_sum + component.p_neg_sum == pytest.approx(1.0)


def test_compare_decides_by_them(client: Client, environment: dict[str, str], folder: Path) -> None:
    job = drawn_job(folder, ScoringOptions())
    masks = folder / "masks.json"
    masks.write_text(json.dumps([mask.model_dump() for mask in job.masks if isinstance(mask, Mask)]), "utf-8")
    command = ["compare", job.image.uri, "--masks", str(masks), "--prompts", "demo", "--treatment", "raw_crop"]
    ran = run_command(*command, "--method", "sigmoid", "--json", environment=environment, folder=folder)
    assert ran.returncode == 0, ran.stderr
    found = [json.loads(line)["treatments"]["raw_crop"] for line in ran.stdout.splitlines()]
    assert len(found) == len(list(job.masks))
    assert all(entry["sigmoid"]["p_pos_sum"] is None and "cosine" in entry for entry in found)


def test_a_model_without_a_bias_refuses_it_with_a_code(
    services: LocalServices, demo_worker: dict[str, str], folder: Path
) -> None:
    settings = ClientSettings(redis_url=services.redis.url, namespace=demo_worker["MASKSCORE_NAMESPACE"])
    with Client(settings) as client:
        handle = client.submit(drawn_job(folder, ScoringOptions(prompts="demo", method="sigmoid")))
        with pytest.raises(JobFailed) as failed:
            handle.wait(timeout=60)
    assert failed.value.code == "no_logit_bias"
