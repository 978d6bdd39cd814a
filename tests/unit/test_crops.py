"""Treatments against their formula, crops against open_clip's own transform."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageFilter

from maskscore.job import ScoringOptions, Treatment
from maskscore.treatments import treatment_tables
from maskscore_worker.crops import make_crop
from maskscore_worker.reference import reference_crop
from maskscore_worker.treatments import treat
from reference import treated

TREATMENTS = get_args(Treatment)


@pytest.mark.parametrize("treatment", TREATMENTS)
@given(alpha=st.floats(0, 1))
@example(alpha=0.4)
def test_treating_equals_the_formula_for_every_grey_value(treatment: Any, alpha: float) -> None:
    crop = np.arange(256, dtype=np.uint8).repeat(2 * 3).reshape(256, 2, 3)
    bits = np.array([[True, False]] * 256)
    before = crop.copy()
    np.testing.assert_array_equal(treat(crop, bits, treatment, alpha), treated(crop, bits, treatment, alpha))
    np.testing.assert_array_equal(crop, before)


def test_single_precision_differs_by_one_level_at_most() -> None:
    tables = treatment_tables("soft_mask", 0.4)
    assert tables is not None
    values = np.arange(256, dtype=np.float32)
    single = np.clip(values * np.float32(0.6) + np.float32(51.2), 0, 255).astype(np.uint8)
    assert np.abs(single.astype(int) - np.frombuffer(tables.outside, np.uint8)).max() <= 1


def plain_transform(size: int) -> Any:
    return image_transform_v2(PreprocessCfg(size=size, mean=(0, 0, 0), std=(1, 1, 1)), is_train=False)


@given(
    width=st.integers(1, 300), height=st.integers(1, 300), size=st.sampled_from([32, 64, 224]), seed=st.integers(0, 99)
)
@example(width=1, height=1, size=224, seed=0)
@example(width=223, height=380, size=224, seed=0)
@example(width=400, height=3, size=64, seed=0)
@example(width=3000, height=2, size=32, seed=0)
def test_a_crop_is_what_open_clips_transform_gives(width: int, height: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height + 7, width + 5, 3), dtype=np.uint8)
    long = max(width, height) > 200 * min(width, height)
    if long:
        # Noise is the worst case of the rounding between two passes; a photo is smooth.
        pixels = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))
    bits = rng.random((height, width)) < 0.6 if not long else np.ones((height, width), bool)
    box = (3, 4, width, height)
    transform = plain_transform(size)
    for treatment in TREATMENTS:
        options = ScoringOptions(treatment=treatment)
        crop = make_crop(pixels, box, bits, options, size=size)
        plain = transform(Image.fromarray(treated(pixels[4 : 4 + height, 3 : 3 + width], bits, treatment, 0.4)))
        expected = np.rint(plain.numpy() * 255).astype(np.uint8).transpose(1, 2, 0)
        assert np.abs(crop.astype(int) - expected).max() <= (2 if long else 0)
        np.testing.assert_array_equal(reference_crop(pixels, box, bits, options, transform).numpy(), plain.numpy())


def test_a_mask_of_one_row_needs_no_memory_without_bound() -> None:
    pixels = np.zeros((1, 60_000, 3), np.uint8)
    bits = np.ones((1, 60_000), bool)
    assert make_crop(pixels, (0, 0, 60_000, 1), bits, ScoringOptions(), size=224).shape == (224, 224, 3)
