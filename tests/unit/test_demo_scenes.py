"""Drawn scenes are the same for the same seed, and their masks fit their labels."""

from __future__ import annotations

import numpy as np
import pytest

from maskscore.prompts import load_builtin
from maskscore_worker.demo.scenes import BACKGROUNDS, FRAGMENT, draw_scene


@pytest.mark.parametrize("seed", range(12))
def test_a_scene(seed: int) -> None:
    scene, again = draw_scene(seed), draw_scene(seed)
    np.testing.assert_array_equal(scene.image, again.image)
    assert [mask.id for mask in scene.masks] == [mask.id for mask in again.masks]
    assert len({mask.id for mask in scene.masks}) == len(scene.masks)
    prompts = load_builtin("demo")
    objects = [mask for mask in scene.masks if mask.kind == "object"]
    assert len(objects) >= 3
    for mask in scene.masks:
        assert mask.mask.shape == scene.image.shape[:2]
        assert mask.mask.sum() > 20
        assert mask.label in (prompts.positive if mask.kind == "object" else prompts.negative)
    assert np.sum([mask.mask for mask in objects], axis=0).max() == 1
    for mask in scene.masks:
        if mask.kind == "background":
            assert mask.label in BACKGROUNDS
            assert not any((mask.mask & thing.mask).any() for thing in objects)
        if mask.kind == "fragment":
            assert mask.label == FRAGMENT
            (whole,) = [thing for thing in objects if (mask.mask & thing.mask).any()]
            assert (mask.mask <= whole.mask).all()
            assert mask.mask.sum() < 0.8 * whole.mask.sum()


def test_the_size_can_be_given() -> None:
    assert draw_scene(1, (200, 300)).image.shape == (200, 300, 3)
