"""Views, averages and sentences scored by the pipeline equal the plain code, with and without a cache."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from in_process_pipeline import Score, in_process_pipeline
from maskscore import Client, ClientSettings, Component, Job, JobResult, Mask, PromptSet, ScoringOptions
from maskscore.devstack import LocalServices
from maskscore.masks import encode_mask
from maskscore.prompts import load_builtin
from maskscore.report import collect_entries, render
from maskscore.schema.job import Frame, Treatment, View
from maskscore.storage import Objects
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import Scene, draw_scene
from reference import Reference, viewed

DEMO = load_builtin("demo")
SIZE = 64
TOLERANCE = {"fast": 1e-3, "reference": 1e-5, "bf16": 3e-2, "device": 1e-3}
VIEWS = [View(treatment=treatment, frame=frame) for treatment in get_args(Treatment) for frame in get_args(Frame)]
NEW = [view for view in VIEWS if not view.specified]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.from_folder(DEMO_WEIGHTS)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return draw_scene(770_001)


@pytest.fixture(scope="module")
def masks(scene: Scene) -> dict[str, npt.NDArray[np.bool_]]:
    """Some of the scene's, one pixel in a corner, a sliver at the border, and the whole image."""
    height, width = scene.image.shape[:2]
    corner, sliver, whole = (np.zeros((height, width), bool) for _ in range(3))
    corner[-1, -1] = sliver[:2, 5:] = whole[:] = True
    drawn = {mask.id: mask.mask for mask in scene.masks[:4]}
    return {**drawn, "corner": corner, "sliver": sliver, "whole": whole}


@pytest.fixture(scope="module")
def image(services: LocalServices, scene: Scene) -> str:
    services.create_bucket("views")
    encoded = io.BytesIO()
    Image.fromarray(scene.image).save(encoded, "PNG")
    objects = Objects(buckets=None, result_buckets=None)
    objects.write("s3://views/scene.png", encoded.getvalue(), content_type="image/png")
    objects.close()
    return "s3://views/scene.png"


@pytest.fixture(scope="module", params=["fast", "reference", "bf16", "device"])
def pipeline(
    request: pytest.FixtureRequest, services: LocalServices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Score]]:
    """In each crop mode, in bf16, and with crops of the device; each with a cache of its own."""
    mode: str = request.param
    with in_process_pipeline(
        buckets=("views",),
        crop_mode="reference" if mode == "reference" else "fast",
        crop_device="device" if mode == "device" else "cpu",
        precision="bf16" if mode == "bf16" else "fp32",
        max_batch=4,
        feature_cache=str(tmp_path_factory.mktemp("cache")),
    ) as score:
        yield mode, score


def scored(score: Score, image: str, masks: dict[str, npt.NDArray[np.bool_]], options: ScoringOptions) -> JobResult:
    listed = [Mask(id=name, segmentation=encode_mask(mask)) for name, mask in masks.items()]
    result = score(Job.model_validate({"image": image, "masks": listed, "options": options}))
    assert [component.id for component in result.components] == list(masks)
    return result


def plain_feature(
    reference: Reference, scene: Scene, mask: npt.NDArray[np.bool_], views: Sequence[View]
) -> torch.Tensor:
    features = []
    for view in views:
        key = (hashlib.sha256(mask.tobytes()).digest(), view.text)
        if key not in reference.features:
            numbers = {"alpha": view.alpha, "blur": view.blur, "context": view.context}
            picture = viewed(scene.image, mask, view.treatment, view.frame, SIZE, **numbers)
            reference.features[key] = reference.feature(picture)
        features.append(reference.features[key])
    return torch.nn.functional.normalize(torch.stack(features).mean(dim=0), dim=-1)


def check(component: Component, feature: torch.Tensor, texts: torch.Tensor, scale: float, tolerance: float) -> None:
    expected = (scale * feature @ texts.T).softmax(dim=-1)[0].numpy()
    given = {entry.text: entry.score for entry in component.top_k or []}
    assert len(given) == len(DEMO.texts)
    assert given == pytest.approx(dict(zip(DEMO.texts, expected, strict=True)), abs=tolerance)


def test_every_recipe_gives_the_plain_codes_scores(
    pipeline: tuple[str, Score],
    reference: Reference,
    scene: Scene,
    image: str,
    masks: dict[str, npt.NDArray[np.bool_]],
) -> None:
    mode, score = pipeline
    texts, scale = reference.text_features(DEMO.texts), float(reference.model.logit_scale.detach().exp())
    for view in NEW:
        options = ScoringOptions(prompts="demo", treatment=view.treatment, frame=view.frame, top_k=len(DEMO.texts))
        result = scored(score, image, masks, options)
        assert [(used.text, used.treatment_version, used.frame_version) for used in result.views] == [(view.text, 1, 1)]
        for component, mask in zip(result.components, masks.values(), strict=True):
            check(component, plain_feature(reference, scene, mask, [view]), texts, scale, TOLERANCE[mode])


def test_averaged_views_and_the_cache(
    pipeline: tuple[str, Score],
    reference: Reference,
    scene: Scene,
    image: str,
    masks: dict[str, npt.NDArray[np.bool_]],
) -> None:
    mode, score = pipeline
    texts, scale = reference.text_features(DEMO.texts), float(reference.model.logit_scale.detach().exp())
    views = (
        View(treatment="soft_mask", alpha=0.7),
        View(treatment="raw_crop", frame="context", context=0.6),
        View(treatment="blur", blur=0.3, frame="pad"),
    )
    options = ScoringOptions(
        prompts="demo", treatment="soft_mask", alpha=0.7, average_with=views[1:], top_k=len(DEMO.texts)
    )
    result = scored(score, image, masks, options)
    assert (result.encoded, result.cached) == (3 * len(masks), 0)
    assert [used.text for used in result.views] == ["soft_mask=0.7", "raw_crop/context=0.6", "blur=0.3/pad"]
    for component, mask in zip(result.components, masks.values(), strict=True):
        check(component, plain_feature(reference, scene, mask, views), texts, scale, TOLERANCE[mode])
    again = scored(score, image, masks, options.model_copy(update={"method": "cosine"}))
    assert (again.encoded, again.cached) == (0, len(masks))
    assert again.views == result.views
    for component, mask in zip(again.components, masks.values(), strict=True):
        cosines = (plain_feature(reference, scene, mask, views) @ texts.T)[0].numpy()
        assert component.s_pos == pytest.approx(cosines[: len(DEMO.positive)].max(), abs=TOLERANCE[mode])
    # One of the three is known by now, under whatever name it is asked for.
    alone = scored(
        score, image, masks, ScoringOptions(prompts="demo", treatment="raw_crop", frame="context", context=0.6)
    )
    assert (alone.encoded, alone.cached) == (0, len(masks))
    partly = ScoringOptions(prompts="demo", treatment="soft_mask", alpha=0.9, average_with=views[2:])
    result = scored(score, image, masks, partly)
    assert (result.encoded, result.cached) == (len(masks), 0)


def test_the_specified_recipes_are_as_they_were(
    pipeline: tuple[str, Score], image: str, masks: dict[str, npt.NDArray[np.bool_]]
) -> None:
    _, score = pipeline
    result = scored(score, image, masks, ScoringOptions(prompts="demo"))
    assert result.views == []
    assert '"views"' not in result.model_dump_json()


def test_sentences_are_averaged_and_the_prompt_is_named(
    pipeline: tuple[str, Score],
    reference: Reference,
    scene: Scene,
    image: str,
    masks: dict[str, npt.NDArray[np.bool_]],
) -> None:
    mode, score = pipeline
    prompts = PromptSet(
        name="sentences",
        positive=DEMO.positive,
        negative=DEMO.negative,
        templates=("{}", "a photo of {}"),
        sentences={"sky": ("sky", "clouds", "blue")},
    )
    result = scored(score, image, masks, ScoringOptions(prompts=prompts, top_k=len(DEMO.texts)))
    assert result.prompts is not None
    assert (result.prompts.digest, result.prompts.positive) == (prompts.digest, len(DEMO.positive))
    sentences = [prompts.sentences_of(text) for text in prompts.texts]
    means = torch.cat([reference.text_features(own).mean(dim=0, keepdim=True) for own in sentences])
    texts = torch.nn.functional.normalize(means, dim=-1)
    scale = float(reference.model.logit_scale.detach().exp())
    for component, mask in zip(result.components, masks.values(), strict=True):
        check(component, plain_feature(reference, scene, mask, [View()]), texts, scale, TOLERANCE[mode])


def test_a_worker_scores_views_and_the_report_says_which(
    services: LocalServices, demo_worker: dict[str, str], image: str, masks: dict[str, npt.NDArray[np.bool_]]
) -> None:
    options = ScoringOptions(
        prompts="demo", treatment="blur", frame="context", average_with=(View(treatment="raw_crop", frame="pad"),)
    )
    settings = ClientSettings(redis_url=services.redis.url, namespace=demo_worker["MASKSCORE_NAMESPACE"])
    with Client(settings) as client:
        result = scored(lambda job: client.submit(job).wait(timeout=60), image, masks, options)
        page = render(list(collect_entries(client, [result.job_id])), title="views")
    assert page.count("blur/context+raw_crop/pad") == 2
    assert page.count("crop of mask") == len(masks)
