"""Treatments equal their formula, and crops equal open_clip's own transform."""

from __future__ import annotations

import resource
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from maskscore.imaging.treatments import treatment_tables
from maskscore.schema.job import View
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


def plain_transform(size: int) -> Any:
    return image_transform_v2(PreprocessCfg(size=size, mean=(0, 0, 0), std=(1, 1, 1)), is_train=False)


@settings(max_examples=30)
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
def test_a_crop_is_what_open_clips_transform_gives(width: int, height: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height + 7, width + 5, 3), dtype=np.uint8)
    bits = rng.random((height, width)) < 0.6
    box = (3, 4, width, height)
    sliver = min(width, height) < size and max(width, height) > 8 * min(width, height)
    transform = plain_transform(size)
    for treatment in TREATMENTS:
        view = View(treatment=treatment)
        crop = make_crop(pixels, box, bits, view, size=size)
        near = make_crop(pixels, box, bits, view, size=size, exact=False)
        plain = transform(Image.fromarray(treated(pixels[4 : 4 + height, 3 : 3 + width], bits, treatment, 0.4)))
        expected = np.rint(plain.numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
        difference = np.abs(crop.astype(int) - expected)
        assert difference.max() <= (2 if sliver else 0)
        assert (difference > 0).mean() < 0.01
        difference = np.abs(near.astype(int) - expected)
        assert difference.max() <= 2
        assert difference.mean() < 0.2
        np.testing.assert_array_equal(reference_crop(pixels, box, bits, view, transform).numpy(), plain.numpy())


@given(short=st.integers(1, 63), aspect=st.floats(8.1, 60), tall=st.booleans(), seed=st.integers(0, 99))
@example(short=1, aspect=2000, tall=False, seed=0)
@example(short=1, aspect=2000, tall=True, seed=0)
@example(short=3, aspect=1300, tall=True, seed=0)
@example(short=3, aspect=1300, tall=False, seed=0)
def test_of_a_sliver_the_middle_is_what_open_clips_transform_gives(
    short: int, aspect: float, tall: bool, seed: int
) -> None:
    width, height = (short, int(short * aspect) + 1) if tall else (int(short * aspect) + 1, short)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    view = View(treatment="raw_crop")
    box, bits = (0, 0, width, height), np.ones((height, width), bool)
    plain = plain_transform(64)(Image.fromarray(pixels)).numpy()
    expected = np.rint(plain * 255).astype(int).transpose(1, 2, 0)
    difference = np.abs(make_crop(pixels, box, bits, view, size=64).astype(int) - expected)
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.01
    reference = reference_crop(pixels, box, bits, view, plain_transform(64)).numpy()
    if max(width, height) > 200 * min(width, height):
        assert np.abs(reference - plain).max() <= 2.01 / 255
    else:
        np.testing.assert_array_equal(reference, plain)


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)])
def test_one_line_of_a_wide_image_takes_little_memory(shape: tuple[int, int]) -> None:
    # Enlarged whole, either would be a picture of 12 GB; they may raise the process's peak by 500 MB.
    height, width = shape
    pixels, bits = np.full((*shape, 3), 7, np.uint8), np.ones(shape, bool)
    box = (0, 0, width, height)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    crop = make_crop(pixels, box, bits, View(), size=224)
    reference = reference_crop(pixels, box, bits, View(), plain_transform(224))
    assert (crop == 7).all()
    assert np.rint(reference.numpy() * 255).astype(int).tolist() == np.full((3, 224, 224), 7).tolist()
    kilobytes = (1024 if sys.platform == "darwin" else 1) * 500_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < kilobytes
