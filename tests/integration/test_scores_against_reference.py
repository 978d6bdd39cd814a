"""The service's scores equal the specification's plain code: drawn scenes, photos, the real architecture."""

from __future__ import annotations

import io
import json
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from maskscore import Client, ClientSettings, Component, Job, JobState, Mask, ScoringOptions
from maskscore.devstack import LocalServices
from maskscore.ledger import Claim
from maskscore.masks import encode_mask
from maskscore.prompts import load_builtin
from maskscore.schema.prompt_set import PromptSet
from maskscore.settings import WorkerSettings
from maskscore.storage import Objects
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from maskscore_worker.pipeline import load_pipeline
from maskscore_worker.telemetry.stage_timer import StageTimer
from reference import Reference, decode, multiplier
from worker_process import start_worker

TREATMENTS = ("original", "raw_crop", "soft_mask")
TOLERANCE = {"fast": 1e-3, "reference": 1e-5, "bf16": 3e-2, "device": 1e-3}
BoolMask = npt.NDArray[np.bool_]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.from_folder(DEMO_WEIGHTS)


@pytest.fixture(scope="module", params=["fast", "reference", "bf16", "device"])
def service(request: pytest.FixtureRequest, services: LocalServices) -> Iterator[tuple[str, Client]]:
    """A worker process of its own in each crop mode, one in bf16, one whose crops the device makes; a client of it."""
    mode: str = request.param
    namespace = f"agreement-{mode}-{uuid.uuid4().hex[:8]}"
    services.create_bucket("agreement")
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": namespace,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_BUCKETS": "agreement",
        "MASKSCORE_CROP_MODE": "reference" if mode == "reference" else "fast",
        "MASKSCORE_CROP_DEVICE": "device" if mode == "device" else "cpu",
        "MASKSCORE_PRECISION": "bf16" if mode == "bf16" else "fp32",
        "MASKSCORE_MAX_BATCH": "16",
    }
    settings = ClientSettings(redis_url=services.redis.url, namespace=namespace)
    with start_worker(environment), Client(settings) as client:
        yield mode, client


def upload(data: bytes, name: str) -> str:
    objects = Objects(buckets=None, result_buckets=None)
    uri = f"s3://agreement/{uuid.uuid4().hex}/{name}"
    objects.write(uri, data, content_type="application/octet-stream")
    objects.close()
    return uri


def check(
    components: list[Component],
    masks: list[BoolMask],
    pixels: npt.NDArray[np.uint8],
    reference: Reference,
    prompts: PromptSet,
    options: ScoringOptions,
    tolerance: float,
) -> None:
    """Every number of every component against the plain code, in the order of the masks."""
    assert [component.index for component in components] == list(range(len(masks)))
    positive = len(prompts.positive)
    for component, mask in zip(components, masks, strict=True):
        assert component.skipped is None, component
        rows, columns = np.nonzero(mask)
        box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert component.box == tuple(int(side) for side in box)
        assert component.area == mask.sum()
        scores = reference.probabilities if options.method == "softmax" else reference.cosines
        expected = scores(pixels, mask, prompts.texts, options.treatment, options.alpha)
        given = {entry.text: entry.score for entry in component.top_k or []}
        assert given == pytest.approx(
            {text: score for text, score in zip(prompts.texts, expected, strict=True) if text in given}, abs=tolerance
        )
        assert component.s_pos == pytest.approx(expected[:positive].max(), abs=tolerance)
        assert component.s_neg == pytest.approx(expected[positive:].max(), abs=tolerance)
        assert component.s_pos_text is not None
        # Where two prompts are nearer than the tolerance, either may win.
        winner = expected[prompts.texts.index(component.s_pos_text)]
        assert winner == pytest.approx(expected[:positive].max(), abs=2 * tolerance)
        if options.method == "cosine":
            assert (component.p_pos_sum, component.p_neg_sum, component.semantic_multiplier) == (None, None, None)
            continue
        p_pos_sum, p_neg_sum = expected[:positive].sum(), expected[positive:].sum()
        assert component.p_pos_sum == pytest.approx(p_pos_sum, abs=tolerance)
        assert component.p_neg_sum == pytest.approx(p_neg_sum, abs=tolerance)
        near = [multiplier(p_pos_sum + d, p_neg_sum - d) for d in (-tolerance, 0, tolerance)]
        assert component.semantic_multiplier in near


@pytest.mark.parametrize("method", ["softmax", "cosine"])
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_drawn_scenes(service: tuple[str, Client], reference: Reference, treatment: Any, method: Any) -> None:
    mode, client = service
    options = ScoringOptions(prompts="demo", treatment=treatment, method=method, alpha=0.3, top_k=5)
    for seed in (880_001, 880_002):
        scene = draw_scene(seed)
        encoded = io.BytesIO()
        Image.fromarray(scene.image).save(encoded, "PNG")
        masks = [Mask(id=mask.id, segmentation=encode_mask(mask.mask)) for mask in scene.masks]
        job = Job.model_validate({"image": upload(encoded.getvalue(), "scene.png"), "masks": masks, "options": options})
        result = client.submit(job).wait(timeout=120)
        assert [component.id for component in result.components] == [mask.id for mask in scene.masks]
        assert result.model is not None
        assert result.model.precision == ("bf16" if mode == "bf16" else "fp32")
        check(
            result.components,
            [mask.mask for mask in scene.masks],
            scene.image,
            reference,
            load_builtin("demo"),
            options,
            TOLERANCE[mode],
        )


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_real_photos_with_all_their_masks(
    service: tuple[str, Client], reference: Reference, treatment: Any, photo_dataset: Path
) -> None:
    mode, client = service
    options = ScoringOptions(prompts="demo", treatment=treatment, top_k=5)
    document = json.loads((photo_dataset / "instances.json").read_text())
    masks_uri = upload((photo_dataset / "instances.json").read_bytes(), "instances.json")
    images = {image["id"]: image for image in document["images"]}
    jobs = {}
    for image in images.values():
        data = (photo_dataset / "images" / image["file_name"]).read_bytes()
        uri = upload(data, image["file_name"])
        job = Job.model_validate(
            {"image": uri, "masks": masks_uri, "options": options, "job_id": f"{image['id']}-{treatment}"}
        )
        jobs[job.job_id] = image
        client.submit(job)
    for result in client.as_completed([client.handle(job_id) for job_id in jobs], timeout=300):
        assert result.state is JobState.SUCCEEDED, result.error
        image = jobs[result.job_id]
        annotations = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        for component, annotation in zip(result.components, annotations, strict=True):
            assert component.id == str(annotation["id"])
            upstream = {name: value for name, value in annotation.items() if name not in ("id", "segmentation")}
            assert component.upstream == upstream
        # The plain code takes its time; a few masks of every photo say as much as all of them.
        some = slice(0, 3)
        pixels = np.asarray(Image.open(photo_dataset / "images" / image["file_name"]).convert("RGB"))
        decoded = [decode(a["segmentation"], image["height"], image["width"]) for a in annotations[some]]
        check(result.components[some], decoded, pixels, reference, load_builtin("demo"), options, TOLERANCE[mode])


def test_a_model_with_another_transform_is_given_its_own(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(DEMO_WEIGHTS, weights)
    config = json.loads((weights / "open_clip_config.json").read_text())
    config["preprocess_cfg"] |= {"resize_mode": "squash", "interpolation": "bilinear", "mean": [0.5] * 3}
    (weights / "open_clip_config.json").write_text(json.dumps(config))
    scene = draw_scene(880_004)
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    masks = [Mask(id=mask.id, segmentation=encode_mask(mask.mask)) for mask in scene.masks]
    options = ScoringOptions(prompts="demo", top_k=5)
    job = Job.model_validate({"image": (tmp_path / "scene.png").as_uri(), "masks": masks, "options": options})
    settings = WorkerSettings(weights=weights, device="cpu", prompts="demo", file_roots=(tmp_path,))
    now = datetime.now(UTC)
    with load_pipeline(settings, worker="here") as pipeline:
        result = pipeline.score(job, Claim(job.job_id, "token", 1, 0, b"", now, now), lambda: None, StageTimer())
    assert result.model is not None
    assert result.model.crop_mode == "reference"
    plain = Reference.from_folder(weights)
    bits = [mask.mask for mask in scene.masks]
    check(result.components, bits, scene.image, plain, load_builtin("demo"), options, TOLERANCE["reference"])


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """ViT-B-32 at full size with generated weights, saved as the real file is."""
    folder = tmp_path_factory.mktemp("vit-b-32")
    torch.manual_seed(7)
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    yield folder
    (folder / "open_clip_model.safetensors").unlink()


@pytest.mark.parametrize("mode", ["fast", "reference"])
def test_the_real_architecture_at_full_size(full_size: Path, tmp_path: Path, mode: Any) -> None:
    plain = Reference.from_architecture("ViT-B-32", full_size / "open_clip_model.safetensors")
    scene = draw_scene(880_003)
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    masks = [Mask(id=mask.id, segmentation=encode_mask(mask.mask)) for mask in scene.masks[:4]]
    settings = WorkerSettings(weights=full_size, device="cpu", crop_mode=mode, file_roots=(tmp_path,))
    now = datetime.now(UTC)
    with load_pipeline(settings, worker="here") as pipeline:
        for treatment in TREATMENTS:
            options = ScoringOptions(treatment=treatment, top_k=5)
            job = Job.model_validate({"image": (tmp_path / "scene.png").as_uri(), "masks": masks, "options": options})
            result = pipeline.score(job, Claim(job.job_id, "token", 1, 0, b"", now, now), lambda: None, StageTimer())
            check(
                result.components,
                [mask.mask for mask in scene.masks[:4]],
                scene.image,
                plain,
                load_builtin("default"),
                options,
                TOLERANCE[mode],
            )
