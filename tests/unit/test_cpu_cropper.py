"""Treatments equal their formula, and crops equal open_clip's own transform."""

from __future__ import annotations

import resource
import sys
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from maskscore.imaging import ClipTransform
from maskscore.imaging.treatments import treatment_tables
from maskscore.schema.job import View
from maskscore.schema.result import Interpolation, ResizeMode
from maskscore.schema.views import SPECIFIED
from maskscore_worker.crops.cpu_cropper import make_crop, treat
from maskscore_worker.crops.reference_cropper import reference_crop
from reference import treated

TREATMENTS = SPECIFIED


@pytest.mark.parametrize("treatment", TREATMENTS)
@given(alpha=st.floats(0, 1))
@example(alpha=0.4)
def test_treating_equals_the_formula_for_every_grey_value(treatment: Any, alpha: float) -> None:
    crop = np.arange(256, dtype=np.uint8).repeat(2 * 3).reshape(256, 2, 3)
    bits = np.array([[True, False]] * 256)
    before = crop.copy()
    made = treat(crop, bits, View(treatment=treatment, alpha=alpha), longer_side=256)
    np.testing.assert_array_equal(made, treated(crop, bits, treatment, alpha))
    np.testing.assert_array_equal(crop, before)


def test_single_precision_differs_by_one_level_at_most() -> None:
    tables = treatment_tables("soft_mask", 0.4)
    assert tables is not None
    values = np.arange(256, dtype=np.float32)
    single = np.clip(values * np.float32(0.6) + np.float32(51.2), 0, 255).astype(np.uint8)
    assert np.abs(single.astype(int) - np.frombuffer(tables.outside, np.uint8)[:256]).max() <= 1


def plain_transform(transform: ClipTransform) -> Any:
    """open_clip's own, without the normalisation."""
    config = PreprocessCfg(
        size=transform.size,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        interpolation=transform.interpolation,
        resize_mode=transform.resize_mode,
        fill_color=transform.fill,  # a colour is taken, too
    )
    return image_transform_v2(config, is_train=False)


@settings(max_examples=8)
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("mode", get_args(ResizeMode))
@given(
    width=st.integers(1, 300), height=st.integers(1, 300), size=st.sampled_from([32, 64, 224]), seed=st.integers(0, 99)
)
@example(width=1, height=1, size=224, seed=0)
@example(width=223, height=380, size=224, seed=0)
@example(width=8, height=64, size=32, seed=0)
@example(width=1601, height=200, size=64, seed=0)
@example(width=24, height=300, size=24, seed=0)
@example(width=71, height=165, size=64, seed=0)
@example(width=100, height=200, size=64, seed=0)
@example(width=100, height=201, size=64, seed=0)
@example(width=69, height=120, size=65, seed=0)
@example(width=64, height=33, size=64, seed=0)
def test_a_crop_is_what_open_clips_transform_gives(
    mode: Any, interpolation: Any, width: int, height: int, size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height + 7, width + 5, 3), dtype=np.uint8)
    bits = rng.random((height, width)) < 0.6
    box = (3, 4, width, height)
    fill = (7, 90, 201) if mode == "longest" else (0, 0, 0)
    ours = ClipTransform(size, mode, interpolation, fill)
    # Of these, open_clip rounds a side to nothing, and raises.
    if mode == "longest" and round(min(width, height) * size / max(width, height)) == 0:
        return
    theirs = plain_transform(ours)
    for treatment in TREATMENTS:
        view = View(treatment=treatment)
        crop = make_crop(pixels, box, bits, view, transform=ours)
        near = make_crop(pixels, box, bits, view, transform=ours, exact=False)
        plain = theirs(Image.fromarray(treated(pixels[4 : 4 + height, 3 : 3 + width], bits, treatment, 0.4)))
        expected = np.rint(plain.numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
        difference = np.abs(crop.astype(int) - expected)
        assert difference.max() <= (2 if ours.is_sliver(width, height) else 0)
        assert (difference > 0).mean() < 0.01
        difference = np.abs(near.astype(int) - expected)
        assert difference.max() <= 2
        assert difference.mean() < 0.2
        np.testing.assert_array_equal(reference_crop(pixels, box, bits, view, theirs, ours).numpy(), plain.numpy())


@pytest.mark.parametrize("mode", get_args(ResizeMode))
@pytest.mark.parametrize(("width", "height"), [(1, 1000), (1000, 1), (3, 1000), (1, 7), (16, 16), (33, 16), (1000, 3)])
def test_a_placement_covers_its_square_or_is_filled_up_evenly(mode: Any, width: int, height: int) -> None:
    wide, high, left, top = ClipTransform(16, mode).placement(width, height)
    assert min(wide, high) >= 1
    for length, start in ((wide, left), (high, top)):
        after = length - start - 16
        assert (mode == "squash") <= (start == after == 0)
        assert (start >= 0) == (after >= 0) or length == 15
        assert abs(start - after) <= 1
    assert (max(wide, high) == 16) == (mode != "shortest" or width == height)


@settings(max_examples=50)
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@given(short=st.integers(1, 63), aspect=st.floats(8.1, 60), tall=st.booleans(), seed=st.integers(0, 99))
@example(short=1, aspect=2000, tall=False, seed=0)
@example(short=1, aspect=2000, tall=True, seed=0)
@example(short=3, aspect=1300, tall=True, seed=0)
@example(short=3, aspect=1300, tall=False, seed=0)
def test_of_a_sliver_the_middle_is_what_open_clips_transform_gives(
    interpolation: Any, short: int, aspect: float, tall: bool, seed: int
) -> None:
    width, height = (short, int(short * aspect) + 1) if tall else (int(short * aspect) + 1, short)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    view = View(treatment="raw_crop")
    box, bits = (0, 0, width, height), np.ones((height, width), bool)
    ours = ClipTransform(64, interpolation=interpolation)
    theirs = plain_transform(ours)
    plain = theirs(Image.fromarray(pixels)).numpy()
    expected = np.rint(plain * 255).astype(int).transpose(1, 2, 0)
    difference = np.abs(make_crop(pixels, box, bits, view, transform=ours).astype(int) - expected)
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.01
    reference = reference_crop(pixels, box, bits, view, theirs, ours).numpy()
    if max(width, height) > 200 * min(width, height):
        assert np.abs(reference - plain).max() <= 2.01 / 255
    else:
        np.testing.assert_array_equal(reference, plain)


@pytest.mark.parametrize("mode", get_args(ResizeMode))
@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)])
def test_one_line_of_a_wide_image_takes_little_memory(mode: Any, shape: tuple[int, int]) -> None:
    # Enlarged whole, either would be a picture of 12 GB; they may raise the process's peak by 500 MB.
    height, width = shape
    pixels, bits = np.full((*shape, 3), 7, np.uint8), np.ones(shape, bool)
    box = (0, 0, width, height)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours = ClipTransform(224, mode)
    crop = make_crop(pixels, box, bits, View(treatment="raw_crop"), transform=ours)
    reference = reference_crop(pixels, box, bits, View(treatment="raw_crop"), plain_transform(ours), ours)
    expected = np.full((224, 224, 3), 7)
    if mode == "longest":
        expected[np.arange(224) != 111] = 0
    np.testing.assert_array_equal(crop, expected if width > 1 or mode != "longest" else expected.transpose(1, 0, 2))
    np.testing.assert_array_equal(np.rint(reference.numpy() * 255), crop.transpose(2, 0, 1))
    kilobytes = (1024 if sys.platform == "darwin" else 1) * 500_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < kilobytes
