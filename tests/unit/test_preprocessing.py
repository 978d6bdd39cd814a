"""What open_clip's preprocessing is read as, and what becomes of one that the fast croppers do not make."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageOps

from in_process_pipeline import in_process_pipeline
from maskscore import Job, Mask
from maskscore.doctor import Deployment
from maskscore.errors import WeightsError
from maskscore.imaging import ClipTransform
from maskscore.settings import WorkerSettings
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.model import preprocessing
from maskscore_worker.model.preprocessing import read_preprocessing
from maskscore_worker.monitoring.doctor_checks import EXAMINATIONS
from maskscore_worker.pipeline import check_weights


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"size": 32}, ClipTransform(32)),
        ({"size": (48, 48), "resize_mode": "squash"}, ClipTransform(48, "squash")),
        ({"size": 33, "resize_mode": "squash", "interpolation": "bilinear"}, ClipTransform(33, "squash", "bilinear")),
        ({"size": 32, "resize_mode": "longest", "fill_color": 9}, ClipTransform(32, "longest", fill=(9, 9, 9))),
        ({"size": 32, "interpolation": "random", "fill_color": 9}, ClipTransform(32)),
    ],
)
def test_a_configuration_of_open_clips_takes_the_fast_path(config: dict[str, Any], expected: ClipTransform) -> None:
    read = read_preprocessing({**config, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}, "A")
    assert (read.known, read.mean, read.std, read.foreign) == (expected, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), None)


@pytest.mark.parametrize(
    ("config", "words"),
    [({"resize_mode": "fit"}, "cannot preprocess"), ({"size": (32, 48)}, "only square"), ({"crop": 1}, "cannot")],
)
def test_a_configuration_that_cannot_be_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        read_preprocessing(config, "A")


def test_a_foreign_transform_makes_its_crops_itself_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def mirrored(config: PreprocessCfg, **options: Any) -> Any:
        usual = image_transform_v2(config, **options)

        def transform(picture: Image.Image) -> torch.Tensor:
            tensor: torch.Tensor = usual(ImageOps.mirror(picture))
            return tensor

        return transform

    monkeypatch.setattr(preprocessing, "image_transform_v2", mirrored)
    Image.effect_noise((40, 30), 90).convert("RGB").save(tmp_path / "noise.png")
    mask = Mask(id="a", segmentation={"size": [30, 40], "counts": [0, 1200]})
    job = Job.model_validate({"image": (tmp_path / "noise.png").as_uri(), "masks": [mask]})
    with caplog.at_level(logging.WARNING), in_process_pipeline(file_roots=(tmp_path,)) as score:
        result = score(job)
    assert result.model is not None
    assert result.model.crop_mode == "reference"
    assert "gives other pixels" in str(result.model.crop_mode_reason)
    assert "Crops are made in the mode `reference`" in caplog.text
    assert "gives other pixels" in str(check_weights(WorkerSettings(weights=DEMO_WEIGHTS, device="cpu")).warning)
    settings = WorkerSettings(weights=DEMO_WEIGHTS)
    finding, _ = EXAMINATIONS["weights"](Deployment(settings, timeout_s=1))
    assert (finding.verdict, "Crops are slow" in finding.sentence) == ("warning", True)
