"""The cropper that a worker uses, by its settings and its model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maskscore.imaging import ClipTransform
from maskscore_worker.crops.cpu_cropper import CpuCropper
from maskscore_worker.crops.device_cropper import DeviceCropper
from maskscore_worker.crops.reference_cropper import ReferenceCropper
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.model.clip import ClipModel, load_model
from maskscore_worker.pipeline.loading import choose_cropper


@pytest.fixture(scope="module", params=["fp32", "fp16", "bf16"])
def model(request: pytest.FixtureRequest) -> ClipModel:
    return load_model(DEMO_WEIGHTS, architecture="", device=torch.device("cpu"), precision=request.param)


@pytest.mark.parametrize("setting", ["auto", "cpu"])
def test_a_model_on_the_cpu_has_its_crops_made_there(model: ClipModel, setting: Any) -> None:
    expected = CpuCropper(ClipTransform(64), exact=model.precision != "bf16")
    assert choose_cropper(setting, model, crop_mode="fast") == expected


def test_the_device_path_can_be_asked_for_on_the_cpu(model: ClipModel) -> None:
    cropper = choose_cropper("device", model, crop_mode="fast")
    assert isinstance(cropper, DeviceCropper)
    assert (cropper.transform, cropper.device) == (ClipTransform(64), model.device)


@pytest.mark.parametrize("setting", ["auto", "cpu", "device"])
def test_the_specifications_code_makes_its_crops_on_the_cpu(model: ClipModel, setting: Any) -> None:
    assert isinstance(choose_cropper(setting, model, crop_mode="reference"), ReferenceCropper)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize(("setting", "kind"), [("auto", DeviceCropper), ("device", DeviceCropper), ("cpu", CpuCropper)])
def test_on_a_gpu_crops_are_made_there_unless_told_otherwise(setting: Any, kind: type) -> None:
    model = load_model(DEMO_WEIGHTS, architecture="", device=torch.device("cuda", 0))
    assert isinstance(choose_cropper(setting, model, crop_mode="fast"), kind)
