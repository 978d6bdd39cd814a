"""Connected components found in run-length codes equal those that the worker finds in pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from maskscore.formats import UnreadableMask
from maskscore.masks import encode_mask
from maskscore.masks.components import connected_parts, counts_of, foreground, joined
from maskscore.parts import CocoSegmentation, rle_of
from maskscore.schema.job import Mask
from maskscore.schema.result import Component
from maskscore.schema.rle_text import counts_from_text
from maskscore_worker.masks.regions import Region, find_regions


def check(mask: Mask, height: int, width: int, *, split: bool) -> int:
    """Hold what is exported of each region against the worker's bits; return how many there are."""
    segmenter = CocoSegmentation([mask], height=height, width=width, checked=True)
    regions = [
        region
        for region in find_regions([mask], height=height, width=width, min_area=1, split_components=split)
        if isinstance(region, Region)
    ]
    for region in regions:
        component = Component(id=region.id, index=0, part=region.part, box=region.box, area=region.area)
        rle = rle_of(segmenter.segmentation(component), height=height, width=width)
        expected = np.zeros((height, width), np.uint8)
        x, y, w, h = region.box
        expected[y : y + h, x : x + w] = region.bits
        np.testing.assert_array_equal(coco.decode(rle), expected)
    return len(regions)


sizes = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)


@given(sizes.flatmap(lambda size: arrays.arrays(np.bool_, size)))
def test_parts_are_the_workers_to_the_pixel_and_in_their_order(inside: npt.NDArray[np.bool_]) -> None:
    check(Mask(id="m", segmentation=encode_mask(inside)), *inside.shape, split=True)


@pytest.mark.parametrize("density", [0.05, 0.2, 0.4, 0.9])
def test_parts_of_large_masks_are_the_workers(density: float) -> None:
    inside = np.random.default_rng(3).random((120, 170)) < density
    assert check(Mask(id="m", segmentation=encode_mask(inside)), 120, 170, split=True) >= 1


@pytest.mark.parametrize("split", [False, True])
def test_polygons_of_several_parts_are_one_mask(split: bool) -> None:
    parts = [
        [2.0, 2.0, 20.5, 3.0, 11.2, 18.9],
        [8.0, 8.0, 50.0, 9.5, 47.0, 30.0, 12.0, 33.3],
        [40.0, 1.0, 50, 1, 45, 6],
    ]
    assert check(Mask(id="m", segmentation=parts), 37, 53, split=split) == (2 if split else 1)


def test_what_was_not_split_stays_as_it_came() -> None:
    polygons, text = [[1.0, 1.0, 5.5, 1.0, 5.0, 5.0]], encode_mask(np.eye(5)).counts
    masks = [
        Mask(id="polygons", segmentation=polygons),
        Mask.model_validate({"id": "text", "segmentation": {"size": [5, 5], "counts": text}}),
        Mask.model_validate({"id": "numbers", "segmentation": {"size": [5, 5], "counts": counts_from_text(str(text))}}),
    ]
    segmenter = CocoSegmentation(masks, height=5, width=5, checked=False)
    found = [segmenter.segmentation(Component(id=mask.id, index=n)) for n, mask in enumerate(masks)]
    assert found == [polygons, {"size": [5, 5], "counts": text}, {"size": [5, 5], "counts": text}]


def test_masks_that_have_changed_are_refused() -> None:
    mask = Mask(id="m", segmentation=encode_mask(np.eye(5)))
    checked = CocoSegmentation([mask, UnreadableMask("u", "no mask")], height=5, width=5, checked=True)
    for component, complaint in (
        (Component(id="m", index=0, area=4), "other pixels"),
        (Component(id="m", index=0, part=0, area=5, box=(0, 0, 4, 4)), "other components"),
        (Component(id="m", index=0, part=1, area=5, box=(0, 0, 5, 5)), "other components"),
        (Component(id="n", index=0), "no mask 'n'"),
        (Component(id="u", index=1), "no mask 'u'"),
        (Component(id="m", index=2), "no mask 'm'"),
    ):
        with pytest.raises(ValueError, match=complaint):
            checked.segmentation(component)


def test_runs_and_spans_are_the_same() -> None:
    assert foreground([3, 2, 0, 4, 1]) == [(3, 5), (5, 9)]
    assert joined([(5, 9), (3, 5), (20, 21), (19, 20)]) == [(3, 9), (19, 21)]
    assert counts_of([(5, 9), (3, 5)], 10) == [3, 6, 1]
    assert counts_of([(0, 10)], 10) == [0, 10]
    assert counts_of([], 10) == [10]
    assert connected_parts([], 5) == []
