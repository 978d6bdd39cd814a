"""Views, averages and sentences scored by real workers equal the plain code, with and without a cache."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

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
from worker_process import start_worker

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
def service(
    request: pytest.FixtureRequest, services: LocalServices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Client]]:
    mode: str = request.param
    namespace = f"views-{mode}-{uuid.uuid4().hex[:8]}"
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": namespace,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_BUCKETS": "views",
        "MASKSCORE_CROP_MODE": "reference" if mode == "reference" else "fast",
        "MASKSCORE_CROP_DEVICE": "device" if mode == "device" else "cpu",
        "MASKSCORE_PRECISION": "bf16" if mode == "bf16" else "fp32",
        "MASKSCORE_MAX_BATCH": "4",
        "MASKSCORE_FEATURE_CACHE": str(tmp_path_factory.mktemp("cache")),
    }
    settings = ClientSettings(redis_url=services.redis.url, namespace=namespace)
    with start_worker(environment), Client(settings) as client:
        yield mode, client


def scored(client: Client, image: str, masks: dict[str, npt.NDArray[np.bool_]], options: ScoringOptions) -> JobResult:
    listed = [Mask(id=name, segmentation=encode_mask(mask)) for name, mask in masks.items()]
    result = client.submit(Job.model_validate({"image": image, "masks": listed, "options": options})).wait(timeout=60)
    assert [component.id for component in result.components] == list(masks)
    return result


def plain_feature(
    reference: Reference, scene: Scene, mask: npt.NDArray[np.bool_], views: Sequence[View]
) -> torch.Tensor:
    features = [
        reference.feature(
            viewed(
                scene.image,
                mask,
                view.treatment,
                view.frame,
                SIZE,
                alpha=view.alpha,
                blur=view.blur,
                context=view.context,
            )
        )
        for view in views
    ]
    return torch.nn.functional.normalize(torch.stack(features).mean(dim=0), dim=-1)


def check(component: Component, feature: torch.Tensor, texts: torch.Tensor, scale: float, tolerance: float) -> None:
    expected = (scale * feature @ texts.T).softmax(dim=-1)[0].numpy()
    given = {entry.text: entry.score for entry in component.top_k or []}
    assert len(given) == len(DEMO.texts)
    assert given == pytest.approx(dict(zip(DEMO.texts, expected, strict=True)), abs=tolerance)


def test_every_recipe_gives_the_plain_codes_scores(
    service: tuple[str, Client],
    reference: Reference,
    scene: Scene,
    image: str,
    masks: dict[str, npt.NDArray[np.bool_]],
) -> None:
    mode, client = service
    texts, scale = reference.text_features(DEMO.texts), float(reference.model.logit_scale.detach().exp())
    for view in NEW:
        options = ScoringOptions(prompts="demo", treatment=view.treatment, frame=view.frame, top_k=len(DEMO.texts))
        result = scored(client, image, masks, options)
        assert [(used.text, used.treatment_version, used.frame_version) for used in result.views] == [(view.text, 1, 1)]
        for component, mask in zip(result.components, masks.values(), strict=True):
            check(component, plain_feature(reference, scene, mask, [view]), texts, scale, TOLERANCE[mode])


def test_averaged_views_and_the_cache(
    service: tuple[str, Client],
    reference: Reference,
    scene: Scene,
    image: str,
    masks: dict[str, npt.NDArray[np.bool_]],
) -> None:
    mode, client = service
    texts, scale = reference.text_features(DEMO.texts), float(reference.model.logit_scale.detach().exp())
    views = (
        View(treatment="soft_mask", alpha=0.7),
        View(treatment="raw_crop", frame="context", context=0.6),
        View(treatment="blur", blur=0.3, frame="pad"),
    )
    options = ScoringOptions(
        prompts="demo", treatment="soft_mask", alpha=0.7, average_with=views[1:], top_k=len(DEMO.texts)
    )
    result = scored(client, image, masks, options)
    assert (result.encoded, result.cached) == (3 * len(masks), 0)
    assert [used.text for used in result.views] == ["soft_mask=0.7", "raw_crop/context=0.6", "blur=0.3/pad"]
    for component, mask in zip(result.components, masks.values(), strict=True):
        check(component, plain_feature(reference, scene, mask, views), texts, scale, TOLERANCE[mode])
    again = next(iter(client.rescore([result.job_id], method="cosine").as_completed(timeout=60)))
    assert (again.encoded, again.cached) == (0, len(masks))
    assert again.views == result.views
    for component, mask in zip(again.components, masks.values(), strict=True):
        cosines = (plain_feature(reference, scene, mask, views) @ texts.T)[0].numpy()
        assert component.s_pos == pytest.approx(cosines[: len(DEMO.positive)].max(), abs=TOLERANCE[mode])
    # One of the three is known by now, under whatever name it is asked for.
    alone = scored(
        client, image, masks, ScoringOptions(prompts="demo", treatment="raw_crop", frame="context", context=0.6)
    )
    assert (alone.encoded, alone.cached) == (0, len(masks))
    partly = ScoringOptions(prompts="demo", treatment="soft_mask", alpha=0.9, average_with=views[2:])
    result = scored(client, image, masks, partly)
    assert (result.encoded, result.cached) == (len(masks), 0)


def test_the_specified_recipes_are_as_they_were(
    service: tuple[str, Client], image: str, masks: dict[str, npt.NDArray[np.bool_]]
) -> None:
    _, client = service
    result = scored(client, image, masks, ScoringOptions(prompts="demo"))
    assert result.views == []
    assert '"views"' not in result.model_dump_json()


def test_sentences_are_averaged_and_the_prompt_is_named(
    service: tuple[str, Client],
    reference: Reference,
    scene: Scene,
    image: str,
    masks: dict[str, npt.NDArray[np.bool_]],
) -> None:
    mode, client = service
    prompts = PromptSet(
        name="sentences",
        positive=DEMO.positive,
        negative=DEMO.negative,
        templates=("{}", "a photo of {}"),
        sentences={"sky": ("sky", "clouds", "blue")},
    )
    result = scored(client, image, masks, ScoringOptions(prompts=prompts, top_k=len(DEMO.texts)))
    assert result.prompts is not None
    assert (result.prompts.digest, result.prompts.positive) == (prompts.digest, len(DEMO.positive))
    sentences = [prompts.sentences_of(text) for text in prompts.texts]
    means = torch.cat([reference.text_features(own).mean(dim=0, keepdim=True) for own in sentences])
    texts = torch.nn.functional.normalize(means, dim=-1)
    scale = float(reference.model.logit_scale.detach().exp())
    for component, mask in zip(result.components, masks.values(), strict=True):
        check(component, plain_feature(reference, scene, mask, [View()]), texts, scale, TOLERANCE[mode])


def test_the_report_says_which_views_were_scored(
    service: tuple[str, Client], image: str, masks: dict[str, npt.NDArray[np.bool_]], tmp_path: Path
) -> None:
    _, client = service
    options = ScoringOptions(
        prompts="demo", treatment="blur", frame="context", average_with=(View(treatment="raw_crop", frame="pad"),)
    )
    result = scored(client, image, masks, options)
    page = render(list(collect_entries(client, [result.job_id])), title="views")
    assert page.count("blur/context+raw_crop/pad") == 2
    assert page.count("crop of mask") == len(masks)
