"""The service's scores equal the specification's plain code: drawn scenes, photos, the real architecture."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from in_process_pipeline import PIPELINE_MODES, TOLERANCE, Score, in_process_pipeline
from maskscore import Client, ClientSettings, Component, Job, Mask, ScoringOptions
from maskscore.devstack import LocalServices
from maskscore.masks import encode_mask
from maskscore.prompts import load_builtin
from maskscore.schema.prompt_set import PromptSet
from maskscore.schema.result import Interpolation, ResizeMode
from maskscore.storage import Objects
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from reference import Reference, decode, multiplier

TREATMENTS = ("original", "raw_crop", "soft_mask")
SEEDS = (880_001, 880_002)
BoolMask = npt.NDArray[np.bool_]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.from_folder(DEMO_WEIGHTS)


@pytest.fixture(scope="module", params=["service", "reference", "bf16", "device"])
def scored(
    request: pytest.FixtureRequest, services: LocalServices, demo_worker: dict[str, str]
) -> Iterator[tuple[str, Score]]:
    """A worker process with the defaults, and pipelines in the other crop mode, in bf16, with crops of the device."""
    mode: str = request.param
    if mode == "service":
        settings = ClientSettings(redis_url=services.redis.url, namespace=demo_worker["MASKSCORE_NAMESPACE"])
        with Client(settings) as client:
            # The defaults on a CPU.
            yield "fast", lambda job: client.submit(job).wait(timeout=300)
        return
    with in_process_pipeline(buckets=("agreement",), max_batch=16, **PIPELINE_MODES[mode]) as score:
        yield mode, score


@pytest.fixture(scope="module")
def uploaded(services: LocalServices, photo_dataset: Path) -> dict[str, str]:
    """The URIs of two drawn scenes and of the dataset's files, by their names."""
    services.create_bucket("agreement")
    objects = Objects(buckets=None, result_buckets=None)
    files = {path.name: path.read_bytes() for path in (photo_dataset / "images").iterdir()}
    files["instances.json"] = (photo_dataset / "instances.json").read_bytes()
    for seed in SEEDS:
        encoded = io.BytesIO()
        Image.fromarray(draw_scene(seed).image).save(encoded, "PNG")
        files[f"{seed}.png"] = encoded.getvalue()
    for name, data in files.items():
        objects.write(f"s3://agreement/{name}", data, content_type="application/octet-stream")
    objects.close()
    return {name: f"s3://agreement/{name}" for name in files}


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
def test_drawn_scenes(
    scored: tuple[str, Score], reference: Reference, uploaded: dict[str, str], treatment: Any, method: Any
) -> None:
    mode, score = scored
    options = ScoringOptions(prompts="demo", treatment=treatment, method=method, alpha=0.3, top_k=5)
    for seed in SEEDS:
        scene = draw_scene(seed)
        masks = [Mask(id=mask.id, segmentation=encode_mask(mask.mask)) for mask in scene.masks]
        job = Job.model_validate({"image": uploaded[f"{seed}.png"], "masks": masks, "options": options})
        result = score(job)
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
    scored: tuple[str, Score], reference: Reference, uploaded: dict[str, str], treatment: Any, photo_dataset: Path
) -> None:
    mode, score = scored
    options = ScoringOptions(prompts="demo", treatment=treatment, top_k=5)
    document = json.loads((photo_dataset / "instances.json").read_text())
    masks = uploaded["instances.json"]
    for image in document["images"]:
        result = score(Job.model_validate({"image": uploaded[image["file_name"]], "masks": masks, "options": options}))
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


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("mode", get_args(ResizeMode))
def test_a_model_with_another_transform_is_given_its_own(tmp_path: Path, mode: Any, interpolation: Any) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(DEMO_WEIGHTS, weights)
    config = json.loads((weights / "open_clip_config.json").read_text())
    own = {"resize_mode": mode, "interpolation": interpolation, "mean": [0.5, 0.4, 0.6], "fill_color": 90}
    config["preprocess_cfg"] |= own
    (weights / "open_clip_config.json").write_text(json.dumps(config))
    scene = draw_scene(880_004)
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    masks = [Mask(id=mask.id, segmentation=encode_mask(mask.mask)) for mask in scene.masks]
    options = ScoringOptions(prompts="demo", top_k=5)
    job = Job.model_validate({"image": (tmp_path / "scene.png").as_uri(), "masks": masks, "options": options})
    with in_process_pipeline(weights=weights, file_roots=(tmp_path,)) as score:
        result = score(job)
    assert result.model is not None
    assert (result.model.crop_mode, result.model.crop_mode_reason) == ("fast", None)
    used = result.model.resize
    if (mode, interpolation) == ("shortest", "bicubic"):
        assert used is None
    else:
        assert used is not None
        assert (used.mode, used.interpolation) == (mode, interpolation)
    plain = Reference.from_folder(weights)
    bits = [mask.mask for mask in scene.masks]
    # The crops are the same to the bit; the folded normalisation rounds differently in fp32.
    check(result.components, bits, scene.image, plain, load_builtin("demo"), options, 1e-4)


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Reference, PromptSet]]:
    """ViT-B-32 at full size with generated weights, saved as the real file is; and a few of the default prompts."""
    folder = tmp_path_factory.mktemp("vit-b-32")
    torch.manual_seed(7)
    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None)
    plain = Reference(model.eval(), transform, open_clip.get_tokenizer("ViT-B-32"))
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    default = load_builtin("default")
    # To encode all of them at full size takes longer than all that is asked here.
    few = PromptSet(name="few", positive=default.positive[:4], negative=default.negative[:3])
    (folder / "few.yaml").write_text(few.model_dump_json(exclude_defaults=True))
    yield folder, plain, few
    (folder / "open_clip_model.safetensors").unlink()


@pytest.mark.parametrize("mode", ["fast", "reference"])
def test_the_real_architecture_at_full_size(
    full_size: tuple[Path, Reference, PromptSet], tmp_path: Path, mode: Any
) -> None:
    folder, plain, prompts = full_size
    scene = draw_scene(880_003)
    Image.fromarray(scene.image).save(tmp_path / "scene.png")
    masks = [Mask(id=mask.id, segmentation=encode_mask(mask.mask)) for mask in scene.masks[:4]]
    bits = [mask.mask for mask in scene.masks[:4]]
    settings = {"weights": folder, "prompts_dir": folder, "prompts": prompts.name, "file_roots": (tmp_path,)}
    with in_process_pipeline(**settings, crop_mode=mode) as score:
        for treatment in TREATMENTS:
            options = ScoringOptions(prompts=prompts.name, treatment=treatment, top_k=5)
            job = Job.model_validate({"image": (tmp_path / "scene.png").as_uri(), "masks": masks, "options": options})
            check(score(job).components, bits, scene.image, plain, prompts, options, TOLERANCE[mode])
