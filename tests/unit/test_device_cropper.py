"""Crops that the device cropper makes in one batch equal the CPU cropper's."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskscore.imaging import ClipTransform
from maskscore.masks import encode_mask
from maskscore.schema.job import Frame, Mask, View
from maskscore.schema.result import Interpolation, ResizeMode
from maskscore.schema.views import SPECIFIED
from maskscore_worker.crops import device_cropper
from maskscore_worker.crops.cpu_cropper import CpuCropper
from maskscore_worker.crops.crop_plan import DevicePlan
from maskscore_worker.crops.device_cropper import DeviceCropper
from maskscore_worker.crops.torch_ops import make_crops
from maskscore_worker.masks.regions import Region, find_regions

needs_triton = pytest.mark.needs("Triton", importlib.util.find_spec("triton"))

CPU = torch.device("cpu")
TREATMENTS = SPECIFIED
Box = tuple[int, int, int, int]


def nothing() -> None:
    pass


def drawn(
    boxes: list[Box], height: int, width: int, seed: int, *, split: bool = False
) -> tuple[npt.NDArray[np.uint8], list[Region]]:
    """Noise, hard edges in it, and ragged masks that touch all sides of their boxes."""
    rng = np.random.default_rng(seed)
    pixels = rng.choice(np.array([0, 40, 128, 255], np.uint8), (height, width, 3))
    masks = []
    for number, (x, y, box_width, box_height) in enumerate(boxes):
        mask = np.zeros((height, width), bool)
        mask[y : y + box_height, x : x + box_width] = rng.random((box_height, box_width)) < 0.6
        mask[[y, y + box_height - 1], [x, x + box_width - 1]] = True
        masks.append(Mask(id=str(number), segmentation=encode_mask(mask)))
    found = find_regions(masks, height=height, width=width, min_area=0, split_components=split)
    regions = [region for region in found if isinstance(region, Region)]
    if not split:
        assert [region.box for region in regions] == boxes
    return pixels, regions


@st.composite
def boxes_in(draw: st.DrawFn, height: int, width: int) -> Box:
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y))


def check(
    made: torch.Tensor, regions: list[Region], pixels: npt.NDArray[np.uint8], view: View, transform: ClipTransform
) -> None:
    expected = CpuCropper(transform, exact=True).open(pixels).make(regions, view, nothing)
    assert made.dtype == torch.uint8
    difference = np.abs(made.cpu().numpy().astype(int) - expected)
    for region, own in zip(regions, difference, strict=True):
        width, height = region.box[2:]
        # Of a sliver the CPU path makes the middle alone, in single precision.
        sliver = view.frame == "cut" and transform.is_sliver(width, height)
        assert own.max() <= (2 if sliver else 0), region.box
        assert (own > 0).mean() < 0.05


@settings(max_examples=8)
@given(
    boxes=st.lists(boxes_in(150, 110), min_size=1, max_size=5),
    size=st.sampled_from([16, 32, 56]),
    treatment=st.sampled_from(TREATMENTS),
    alpha=st.floats(0, 1),
    seed=st.integers(0, 99),
)
@example(boxes=[(0, 0, 110, 150), (3, 2, 1, 1), (5, 0, 9, 150)], size=32, treatment="original", alpha=0.4, seed=0)
@example(boxes=[(3, 2, 40, 140), (0, 7, 110, 1), (7, 0, 1, 150)], size=16, treatment="soft_mask", alpha=0.4, seed=1)
@example(boxes=[(0, 0, 32, 32), (1, 1, 33, 64), (1, 1, 32, 65)], size=32, treatment="raw_crop", alpha=0.4, seed=2)
# Pillow begins with the width of the first, with the height of the second, though both are more than twice as high.
@example(boxes=[(0, 0, 70, 145), (0, 0, 26, 150), (4, 3, 20, 15)], size=24, treatment="original", alpha=0.4, seed=3)
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("mode", get_args(ResizeMode))
def test_many_crops_at_once_are_the_cpu_paths(
    mode: Any, interpolation: Any, boxes: list[Box], size: int, treatment: Any, alpha: float, seed: int
) -> None:
    pixels, regions = drawn(boxes, 150, 110, seed)
    view = View(treatment=treatment, alpha=alpha)
    transform = ClipTransform(size, mode, interpolation, (7, 90, 201))
    made = DeviceCropper(transform, CPU).open(pixels).make(regions, view, nothing)
    check(made, regions, pixels, view, transform)


def test_components_are_cropped_by_their_own_pixels() -> None:
    pixels, regions = drawn([(2, 3, 40, 30)], 60, 50, 5, split=True)
    assert len({region.part for region in regions}) == len(regions) >= 3
    made = DeviceCropper(ClipTransform(16), CPU).open(pixels).make(regions, View(), nothing)
    check(made, regions, pixels, View(), ClipTransform(16))


def test_crops_at_full_size_and_more_pixels_than_one_call_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, regions = drawn([(0, 0, 400, 500), (10, 10, 200, 30), (5, 5, 3, 2), (100, 0, 300, 499)], 500, 400, 1)
    view = View(treatment="soft_mask")
    whole = DeviceCropper(ClipTransform(224), CPU).open(pixels).make(regions, view, nothing)
    check(whole, regions, pixels, view, ClipTransform(224))
    calls: list[int] = []
    cropper = DeviceCropper(ClipTransform(224), CPU)
    make = cropper.make_crops

    def counted(image: torch.Tensor, plan: DevicePlan, *rest: Any) -> torch.Tensor:
        calls.append(len(plan.host))
        return make(image, plan, *rest)

    cropper.make_crops = counted
    monkeypatch.setattr(device_cropper, "_MOST_PIXELS", 10_000)
    assert torch.equal(cropper.open(pixels).make(regions, view, nothing), whole)
    assert calls == [1, 2, 1]


def test_where_the_devices_memory_is_full_crops_are_made_on_the_cpu() -> None:
    pixels, regions = drawn([(0, 0, 40, 50), (3, 3, 9, 30)], 60, 50, 2)

    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    cropper = DeviceCropper(ClipTransform(32), CPU)
    cropper.make_crops = full
    check(cropper.open(pixels).make(regions, View(), nothing), regions, pixels, View(), ClipTransform(32))


def test_a_job_can_be_stopped_between_its_crops() -> None:
    pixels, regions = drawn([(0, 0, 40, 50)], 60, 50, 2)

    def stop() -> None:
        raise TimeoutError("enough")

    for cropper in (DeviceCropper(ClipTransform(16), CPU), CpuCropper(ClipTransform(16), exact=True)):
        with pytest.raises(TimeoutError, match="enough"):
            cropper.open(pixels).make(regions, View(), stop)


@needs_triton
def test_tritons_kernels_give_the_same_in_its_interpreter() -> None:
    # The interpreter is chosen when Triton is imported; it takes a millisecond per step, so all is small.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    script = Path(__file__).parent / "triton_interpreted.py"
    answer = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == ["equal"] * 3


@needs_triton
def test_tritons_kernels_compile_for_a_gpu_that_is_not_here() -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from maskscore_worker.crops import triton_ops

    pointers = {"image": "*u8", "treated": "*u8", "resized": "*u8", "finished": "*u8", "tables": "*u8"}
    pointers |= {"owner": "*i32", "table": "*i64", "edges": "*i64", "starts": "*i32", "weights": "*i32"}
    for name, constants in (
        ("_treat", {"STEPS": 8, "MASKED": True, "BLOCK": 128}),
        ("_treat", {"STEPS": 0, "MASKED": False, "BLOCK": 128}),
        ("_across", {"BLOCK": 64}),
        ("_down", {"FILLED_UP": True, "BLOCK": 256}),
    ):
        kernel = getattr(triton_ops, name)
        signature = {
            argument: "constexpr" if argument in constants else pointers.get(argument, "i32")
            for argument in kernel.arg_names
        }
        compiled = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32))
        assert compiled.asm["cubin"]


def test_kernels_are_taken_only_where_they_give_the_same() -> None:
    def brighter(*arguments: Any) -> torch.Tensor:
        made = make_crops(*arguments)
        made[-1, 5, 5, 0] ^= 1
        return made

    assert device_cropper._agrees(make_crops, CPU, ClipTransform(64))
    assert not device_cropper._agrees(brighter, CPU, ClipTransform(64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("frame", get_args(Frame))
@pytest.mark.parametrize("treatment", TREATMENTS)
@pytest.mark.parametrize("mode", get_args(ResizeMode))
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_on_a_gpu_both_formulations_give_the_cpu_paths_crops(
    mode: Any, interpolation: Any, treatment: Any, frame: Any
) -> None:
    triton_ops = pytest.importorskip("maskscore_worker.crops.triton_ops")
    pixels, regions = drawn([(0, 0, 400, 500), (10, 10, 40, 300), (5, 5, 3, 2), (0, 70, 390, 3)], 500, 400, 1)
    view = View(treatment=treatment, frame=frame)
    transform = ClipTransform(224, mode, interpolation, (7, 90, 201))
    cropper = DeviceCropper(transform, torch.device("cuda", 0))
    assert cropper.make_crops is triton_ops.make_crops
    for make in (triton_ops.make_crops, make_crops):
        cropper.make_crops = make
        check(cropper.open(pixels).make(regions, view, nothing), regions, pixels, view, transform)
    # Pixels in the cropper's own memory are not copied on their way.
    own = cropper.memory(pixels.shape)
    assert torch.from_numpy(own).is_pinned()
    own[:] = pixels
    check(cropper.open(own).make(regions, view, nothing), regions, pixels, view, transform)
