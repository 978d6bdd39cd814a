"""Models of several kinds through running workers: the scores are those of plain open_clip code.

Each is an open_clip architecture with a smaller image and text tower and random weights. Together they have every
resize mode, both interpolations, both kinds of tokenizer, and towers of open_clip's own and of timm, one with a bias.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
from PIL import Image

from maskscore import Client, ClientSettings, Job, Mask, ScoringOptions
from maskscore.devstack import LocalServices
from maskscore.masks import encode_mask
from maskscore.schema.prompt_set import PromptSet
from maskscore.schema.result import Interpolation, ResizeMode
from maskscore.schema.scoring_options import Method
from maskscore_worker.inputs.sample_photos import photo
from random_models import TEXTS, write_random_model
from reference import Reference
from worker_process import start_worker

TEXT_TOWER: Final = {"width": 64, "heads": 2, "layers": 2}
BIAS: Final = -2.0
PROMPTS: Final = PromptSet(name="few", positive=TEXTS[:2], negative=TEXTS[2:])
CENTRES: Final = ((110, 200), (190, 230), (80, 400))
"""Of the masks, in the rows and columns of the photo of a cat."""


@dataclass(frozen=True)
class Kind:
    """A model's name on the queue, the architecture and what is changed of it, and its transform."""

    architecture: str
    vision: dict[str, Any]
    mode: ResizeMode
    interpolation: Interpolation
    text: dict[str, Any]
    others: dict[str, Any]

    def write(self, folder: Path) -> Path:
        """Write its weights into ``folder``, and return it."""
        config = open_clip.get_model_config(self.architecture)
        config |= self.others
        config["vision_cfg"] |= self.vision
        config["text_cfg"] |= TEXT_TOWER | self.text
        own = {"resize_mode": self.mode, "interpolation": self.interpolation, "mean": [0.5, 0.4, 0.6], "fill_color": 90}
        return write_random_model(folder, {"model_cfg": config, "preprocess_cfg": own | {"std": [0.3, 0.25, 0.2]}})


KINDS: Final = {
    "plain": Kind(
        "ViT-B-32",
        {"image_size": 64, "patch_size": 16, "width": 128, "head_width": 32, "layers": 2},
        "shortest",
        "bilinear",
        {},
        {"embed_dim": 64},
    ),
    "biased": Kind(
        "ViT-B-16-SigLIP2-256",
        {"image_size": 160, "timm_model_name": "test_vit"},
        "squash",
        "bicubic",
        {"vocab_size": 64},
        {"embed_dim": 64, "init_logit_bias": BIAS},  # test_vit's width
    ),
    "convolutional": Kind(
        "convnext_base_w",
        {"image_size": 160, "timm_model_name": "test_convnext"},
        "longest",
        "bicubic",
        {},
        {"embed_dim": 64},
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights by the kinds' names, a photo and a prompt set."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, kind in KINDS.items():
        kind.write(folder / name)
    Image.fromarray(photo("chelsea")).save(folder / "photo.png")
    (folder / "few.yaml").write_text(PROMPTS.model_dump_json(exclude_defaults=True), "utf-8")
    return folder


@pytest.fixture(scope="module")
def client(services: LocalServices, folder: Path) -> Iterator[Client]:
    """A client of a service with one worker for each model."""
    namespace = f"kinds-{uuid.uuid4().hex[:8]}"
    worker = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": namespace,
        "MASKSCORE_PROMPTS": PROMPTS.name,
        "MASKSCORE_PROMPTS_DIR": str(folder),
        "MASKSCORE_FILE_ROOTS": str(folder),
    }
    with ExitStack() as stack:
        for name in KINDS:
            own = {"MASKSCORE_MODEL_NAME": name, "MASKSCORE_WEIGHTS": str(folder / name)}
            stack.enter_context(start_worker({**worker, **own}))
        settings = ClientSettings(redis_url=services.redis.url, namespace=namespace)
        yield stack.enter_context(Client(settings))


def round_masks(pixels: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.bool_]]:
    rows, columns = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    return [((rows - y) / 70) ** 2 + ((columns - x) / 40) ** 2 < 1 for y, x in CENTRES]


@pytest.mark.parametrize("name", KINDS)
def test_the_scores_are_those_of_open_clip(client: Client, folder: Path, name: str) -> None:
    kind, plain, pixels = KINDS[name], Reference.from_folder(folder / name), photo("chelsea")
    bits = round_masks(pixels)
    features = torch.cat([plain.image_feature(pixels, mask, "original", 0.4) for mask in bits])
    with torch.no_grad():
        cosines = features @ plain.text_features(TEXTS).T
        scale, bias = plain.model.logit_scale.exp(), getattr(plain.model, "logit_bias", None)
        expected: dict[Method, torch.Tensor] = {"cosine": cosines, "softmax": (scale * cosines).softmax(dim=-1)}
        if bias is not None:
            expected["sigmoid"] = torch.sigmoid(scale * cosines + bias)
    assert ("sigmoid" in expected) == (name == "biased")

    masks = [Mask.model_validate({"id": str(n), "segmentation": encode_mask(mask)}) for n, mask in enumerate(bits)]
    jobs = {
        method: Job(
            image=(folder / "photo.png").as_uri(),
            masks=masks,
            options=ScoringOptions(prompts=PROMPTS.name, model=name, method=method, top_k=len(TEXTS)),
        )
        for method in expected
    }
    results = {result.method: result for result in client.submit_many(list(jobs.values())).as_completed(120)}
    assert set(results) == set(expected)
    for method, values in expected.items():
        result = results[method]
        assert result.error is None, result.error
        assert result.model is not None
        assert (result.model.name, result.model.crop_mode) == (name, "fast")
        assert result.model.resize is not None
        assert (result.model.resize.mode, result.model.resize.interpolation) == (kind.mode, kind.interpolation)
        given = [{entry.text: entry.score for entry in component.top_k or []} for component in result.components]
        scores = np.array([[entries[text] for text in TEXTS] for entries in given])
        error = np.abs(scores - values.numpy()).max()
        assert error <= 2e-5
        # With random weights all masks are near one another: the comparison must still tell them apart.
        assert error <= np.ptp(values.numpy(), axis=0).max() / 5
        assert [component.s_pos for component in result.components] == pytest.approx(scores[:, :2].max(axis=1))
        assert [component.s_neg for component in result.components] == pytest.approx(scores[:, 2:].max(axis=1))
