"""Views, averages and sentences scored by the pipeline equal the plain code, with and without a cache."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from in_process_pipeline import PIPELINE_MODES, TOLERANCE, Score, in_process_pipeline
from maskscore import Client, ClientSettings, Job, JobResult, Mask, PromptSet, ScoringOptions
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


def scored(score: Score, image: str, masks: dict[str, npt.NDArray[np.bool_]], options: ScoringOptions) -> JobResult:
    listed = [Mask(id=name, segmentation=encode_mask(mask)) for name, mask in masks.items()]
    result = score(Job.model_validate({"image": image, "masks": listed, "options": options}))
    assert [component.id for component in result.components] == list(masks)
    return result


@dataclass(frozen=True)
class Comparison:
    """A pipeline with the masks that it scores, and the plain code that scores the same."""

    score: Score
    tolerance: float
    reference: Reference
    scene: Scene
    image: str
    masks: dict[str, npt.NDArray[np.bool_]]

    def scored(self, options: ScoringOptions) -> JobResult:
        return scored(self.score, self.image, self.masks, options)

    def plain_features(self, views: Sequence[View]) -> Iterator[torch.Tensor]:
        """Yield the mean feature of the views, of each mask."""
        for mask in self.masks.values():
            features = [self._plain_feature(mask, view) for view in views]
            yield torch.nn.functional.normalize(torch.stack(features).mean(dim=0), dim=-1)

    def _plain_feature(self, mask: npt.NDArray[np.bool_], view: View) -> torch.Tensor:
        known = self.reference.features
        key = (hashlib.sha256(mask.tobytes()).digest(), view.text)
        if key not in known:
            numbers = {"alpha": view.alpha, "blur": view.blur, "context": view.context}
            picture = viewed(self.scene.image, mask, view.treatment, view.frame, SIZE, **numbers)
            known[key] = self.reference.feature(picture)
        return known[key]

    def check(self, result: JobResult, views: Sequence[View], texts: torch.Tensor | None = None) -> None:
        """Compare the probabilities of all demo prompts; ``texts`` are their features, where these are not plain."""
        texts = self.reference.text_features(DEMO.texts) if texts is None else texts
        scale = float(self.reference.model.logit_scale.detach().exp())
        for component, feature in zip(result.components, self.plain_features(views), strict=True):
            expected = (scale * feature @ texts.T).softmax(dim=-1)[0].numpy()
            given = {entry.text: entry.score for entry in component.top_k or []}
            assert len(given) == len(DEMO.texts)
            assert given == pytest.approx(dict(zip(DEMO.texts, expected, strict=True)), abs=self.tolerance)


@pytest.fixture(scope="module", params=list(PIPELINE_MODES))
def comparison(
    request: pytest.FixtureRequest,
    services: LocalServices,
    tmp_path_factory: pytest.TempPathFactory,
    reference: Reference,
    scene: Scene,
    image: str,
    masks: dict[str, npt.NDArray[np.bool_]],
) -> Iterator[Comparison]:
    """In each mode, with a cache of its own."""
    mode: str = request.param
    cache = str(tmp_path_factory.mktemp("cache"))
    with in_process_pipeline(buckets=("views",), max_batch=4, feature_cache=cache, **PIPELINE_MODES[mode]) as score:
        yield Comparison(score, TOLERANCE[mode], reference, scene, image, masks)


def test_every_view_gives_the_plain_codes_scores(comparison: Comparison) -> None:
    for view in NEW:
        options = ScoringOptions(prompts="demo", treatment=view.treatment, frame=view.frame, top_k=len(DEMO.texts))
        result = comparison.scored(options)
        assert [(used.text, used.treatment_version, used.frame_version) for used in result.views] == [(view.text, 1, 1)]
        comparison.check(result, [view])


def test_averaged_views_and_the_cache(comparison: Comparison) -> None:
    count = len(comparison.masks)
    views = (
        View(treatment="soft_mask", alpha=0.7),
        View(treatment="raw_crop", frame="context", context=0.6),
        View(treatment="blur", blur=0.3, frame="pad"),
    )
    options = ScoringOptions(
        prompts="demo", treatment="soft_mask", alpha=0.7, average_with=views[1:], top_k=len(DEMO.texts)
    )
    result = comparison.scored(options)
    assert (result.encoded, result.cached) == (3 * count, 0)
    assert [used.text for used in result.views] == ["soft_mask=0.7", "raw_crop/context=0.6", "blur=0.3/pad"]
    comparison.check(result, views)
    again = comparison.scored(options.model_copy(update={"method": "cosine"}))
    assert (again.encoded, again.cached) == (0, count)
    assert again.views == result.views
    texts = comparison.reference.text_features(DEMO.positive)
    for component, feature in zip(again.components, comparison.plain_features(views), strict=True):
        assert component.s_pos == pytest.approx((feature @ texts.T).max().item(), abs=comparison.tolerance)
    # One of the three is known by now, under whatever name it is asked for.
    alone = comparison.scored(ScoringOptions(prompts="demo", treatment="raw_crop", frame="context", context=0.6))
    assert (alone.encoded, alone.cached) == (0, count)
    partly = ScoringOptions(prompts="demo", treatment="soft_mask", alpha=0.9, average_with=views[2:])
    result = comparison.scored(partly)
    assert (result.encoded, result.cached) == (count, 0)


def test_the_specified_views_are_not_listed(comparison: Comparison) -> None:
    result = comparison.scored(ScoringOptions(prompts="demo"))
    assert result.views == []
    assert '"views"' not in result.model_dump_json()


def test_sentences_are_averaged_and_the_prompt_is_named(comparison: Comparison) -> None:
    prompts = PromptSet(
        name="sentences",
        positive=DEMO.positive,
        negative=DEMO.negative,
        templates=("{}", "a photo of {}"),
        sentences={"sky": ("sky", "clouds", "blue")},
    )
    result = comparison.scored(ScoringOptions(prompts=prompts, top_k=len(DEMO.texts)))
    assert result.prompts is not None
    assert (result.prompts.digest, result.prompts.positive) == (prompts.digest, len(DEMO.positive))
    sentences = [prompts.sentences_of(text) for text in prompts.texts]
    means = torch.cat([comparison.reference.text_features(own).mean(dim=0, keepdim=True) for own in sentences])
    comparison.check(result, [View()], torch.nn.functional.normalize(means, dim=-1))


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
