"""Every architecture of open_clip with a text tower of its own: loaded, its path, and open_clip's own features.

By default two small ones; with ``--all-models`` all whose image tower has less than 200 million parameters. Weights are
random.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch

from maskscore.schema.job import ScoringOptions, View
from maskscore.schema.prompt_set import PromptSet
from maskscore_worker.crops.cpu_cropper import make_crop
from maskscore_worker.inputs.sample_photos import photo
from maskscore_worker.model.clip import load_model
from maskscore_worker.scoring import score
from random_models import TEXTS, architecture_config, image_tower_parameters, own_text_tower, write_random_model
from reference import Reference

MOST_PARAMETERS: Final = 200e6
SMALL: Final = ("ViT-S-32-alt", "PE-Core-T-16-384")
"""A tower of open_clip's own and one of timm; ``test_fast_tower.py`` has parts of all kinds."""
REFERENCE_PATH: Final[dict[str, str]] = {}
"""Architectures whose crops open_clip makes itself, and words of the reason."""
BOXES: Final = {"chelsea": (100, 30, 260, 180), "rocket": (280, 100, 60, 300)}
"""Parts of scikit-image's photos, as ``xywh``."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "architecture" in metafunc.fixturenames:
        every = metafunc.config.getoption("--all-models")
        metafunc.parametrize("architecture", own_text_tower() if every else SMALL)


def test_the_architecture_gives_open_clips_features(
    architecture: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if (parameters := image_tower_parameters(architecture)) >= MOST_PARAMETERS:
        pytest.skip(f"an image tower of {parameters / 1e6:.0f} million parameters")
    folder = write_random_model(tmp_path / "weights", architecture_config(architecture))
    with caplog.at_level(logging.WARNING, "maskscore_worker"):
        caplog.clear()
        ours = load_model(folder, architecture=architecture, device=torch.device("cpu"))
        warnings = [record.getMessage() for record in caplog.records if record.name.startswith("maskscore")]
    assert ours.architecture == architecture
    assert not [warning for warning in warnings if "tower" in warning]
    if architecture in REFERENCE_PATH:
        assert REFERENCE_PATH[architecture] in str(ours.preprocessing.foreign)
    else:
        assert ours.preprocessing.foreign is None

    plain = Reference.from_folder(folder)
    crops, expected = [], []
    for name, (x, y, width, height) in BOXES.items():
        pixels = photo(name)
        bits = np.hypot(*np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]) < 1.2  # without its corners
        view, transform = View(treatment="original"), ours.preprocessing.known
        crops.append(make_crop(pixels, (x, y, width, height), bits, view, transform=transform, exact=True))
        mask = np.zeros(pixels.shape[:2], bool)
        mask[y : y + height, x : x + width] = bits
        expected.append(plain.image_feature(pixels, mask, "original", 0.5).numpy().reshape(-1))
    features, texts = ours.encode_images(np.stack(crops)), ours.encode_texts(TEXTS)
    error, difference = np.abs(features - np.stack(expected)).max(), np.abs(expected[0] - expected[1]).max()
    assert error <= 1e-5
    # With random weights all pictures are near one another: the comparison must still tell them apart.
    assert error <= difference / 5
    assert np.abs(texts - plain.text_features(TEXTS).numpy()).max() <= 1e-5

    prompts = PromptSet(name="some", positive=list(TEXTS[:2]), negative=list(TEXTS[2:]))
    logits = np.exp(float(plain.model.logit_scale.detach())) * np.stack(expected) @ plain.text_features(TEXTS).numpy().T
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    scores = score(features, texts, prompts, logit_scale=ours.logit_scale, options=ScoringOptions())
    np.testing.assert_allclose([found.s_pos for found in scores], probabilities[:, :2].max(axis=1), atol=1e-3)
