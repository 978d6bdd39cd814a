"""Regions (boxes, bits, components, refusals) against NumPy, pycocotools and a flood fill written here."""

from __future__ import annotations

import json
import math
import tracemalloc
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from maskscore.errors import FailureCode, JobError, SkipCode
from maskscore.formats import UnreadableMask, read_masks
from maskscore.imaging.mask_pictures import component_bits
from maskscore.masks import count_fitting, encode_mask
from maskscore.masks.arrays import Runs
from maskscore.masks.components import spans_of
from maskscore.parts import CocoSegmentation
from maskscore.schema.job import Mask
from maskscore.schema.result import Component
from maskscore_worker.masks.regions import Region, SkippedRegion, check_sizes, find_regions
from reference import decode

Bits = npt.NDArray[np.bool_]
bits = arrays.arrays(
    bool, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.booleans(), fill=st.booleans()
)


def mask_of(segmentation: Any) -> Mask:
    return Mask.model_validate({"id": "m", "segmentation": segmentation})


def find(segmentation: Any, height: int, width: int, **options: Any) -> list[Region | SkippedRegion]:
    settings = {"min_area": 1, "split_components": False, **options}
    return list(find_regions([mask_of(segmentation)], height=height, width=width, **settings))


def uncompressed(mask: Bits) -> dict[str, Any]:
    flat = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": [int(n) for n in np.diff([0, *edges, mask.size])]}


def pasted(region: Region, shape: tuple[int, ...]) -> Bits:
    x, y, width, height = region.box
    picture = np.zeros(shape, bool)
    picture[y : y + height, x : x + width] = region.bits
    return picture


@given(bits)
@example(np.ones((7, 5), bool))
@example(np.zeros((7, 5), bool))
@example(np.eye(9, dtype=bool))
def test_rle_gives_the_tight_box_and_its_bits(mask: Bits) -> None:
    for segmentation in (encode_mask(mask), uncompressed(mask)):
        (region,) = find(segmentation, *mask.shape)
        if not mask.any():
            assert isinstance(region, SkippedRegion)
            assert region.code == SkipCode.EMPTY_MASK
            continue
        assert isinstance(region, Region)
        rows, columns = np.nonzero(mask)
        box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert region.box == tuple(int(side) for side in box)
        assert region.area == mask.sum()
        np.testing.assert_array_equal(pasted(region, mask.shape), mask)


points = st.tuples(st.floats(-5, 45), st.floats(-5, 35))
parts = st.lists(points, min_size=3, max_size=8).map(lambda part: list(chain.from_iterable(part)))


@given(st.lists(parts, min_size=1, max_size=3))
def test_polygons_are_filled_as_coco_fills_them(polygons: list[list[float]]) -> None:
    expected = coco.decode(coco.merge(coco.frPyObjects(polygons, 30, 40))).astype(bool)
    (region,) = find(polygons, 30, 40)
    if isinstance(region, SkippedRegion):
        assert region.code in (SkipCode.EMPTY_MASK, SkipCode.OUTSIDE_IMAGE)
        assert not expected.any()
    else:
        np.testing.assert_array_equal(pasted(region, (30, 40)), expected)


def flooded(mask: Bits) -> list[set[tuple[int, int]]]:
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    found = []
    while left:
        component, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            component.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge.extend(near)
        found.append(component)
    return found


@given(bits, st.integers(1, 6))
def test_components_are_the_flood_fills_largest_first(mask: Bits, min_area: int) -> None:
    regions = find(encode_mask(mask), *mask.shape, split_components=True, min_area=min_area)
    expected = [component for component in flooded(mask) if len(component) >= min_area]
    left_out = [region for region in regions if isinstance(region, SkippedRegion)]
    if len(expected) < len(flooded(mask)) or not mask.any():
        assert regions[-1:] == left_out
        assert (left_out[0].area or 0) == mask.sum() - sum(map(len, expected))
    else:
        assert left_out == []
    whole = [region for region in regions if isinstance(region, Region)]
    assert [region.part for region in whole] == list(range(len(expected)))
    assert [region.area for region in whole] == sorted(map(len, expected), reverse=True)
    found = [{(int(y), int(x)) for y, x in zip(*np.nonzero(pasted(r, mask.shape)), strict=True)} for r in whole]
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    for region in whole:
        edges = (region.bits[0], region.bits[-1], region.bits[:, 0], region.bits[:, -1])
        assert all(edge.any() for edge in edges)


def test_what_is_said_of_small_parts() -> None:
    mask = np.zeros((60, 60), bool)
    mask[10:30, 10:30] = mask[40:42, 40:43] = mask[50:52, 50:53] = True
    region, skipped = find(encode_mask(mask), 60, 60, split_components=True, min_area=10)
    assert (region.part, region.area) == (0, 400)
    assert isinstance(skipped, SkippedRegion)
    assert (skipped.code, skipped.area) == (SkipCode.BELOW_MIN_AREA, 12)
    assert skipped.message == "2 of the mask's 3 parts, 12 pixels together, are below min_area (10)."
    mask[10:30, 10:30] = False
    (skipped,) = find(encode_mask(mask), 60, 60, split_components=True, min_area=10)
    assert isinstance(skipped, SkippedRegion)
    assert skipped.message == "None of the mask's 2 parts has 10 pixels (min_area): the largest has 6, all together 12."
    assert skipped.box == (40, 40, 13, 12)


def dots(side: int) -> Mask:
    mask = np.zeros((side, side), bool)
    mask[::2, ::2] = True
    return mask_of(encode_mask(mask))


def test_a_mask_of_too_many_parts_is_refused_before_they_are_made() -> None:
    def limit(count: int) -> None:
        asked.append(count)
        if count > 10_000:
            raise JobError(FailureCode.TOO_MANY_MASKS, f"{count}")

    asked: list[int] = []
    options: dict[str, Any] = {"split_components": True, "check_count": limit}
    masks = [dots(100), dots(1000)]
    regions = find_regions([masks[0].model_copy(), masks[0]], height=100, width=100, min_area=1, **options)
    assert sum(1 for _ in regions) == 5000
    assert asked == [2500, 5000]
    tracemalloc.start()
    try:
        with pytest.raises(JobError, match="250000"):
            next(find_regions([masks[1]], height=1000, width=1000, min_area=1, **options))
        # 5 bytes per pixel and a few per part; a region for each would take 100 MB.
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
    # What min_area leaves out does not count.
    (skipped,) = find_regions([masks[1]], height=1000, width=1000, min_area=2, **options)
    assert isinstance(skipped, SkippedRegion)
    assert (skipped.code, skipped.area) == (SkipCode.BELOW_MIN_AREA, 250_000)


def test_long_thin_parts_are_not_kept_as_their_boxes() -> None:
    side = 1500
    mask = np.zeros((side, side), bool)
    for shift in range(0, 40, 4):
        mask |= np.eye(side, k=shift, dtype=bool)
    regions = find(encode_mask(mask), side, side, split_components=True)
    assert len(regions) == 10
    for region in regions:
        assert isinstance(region, Region)
        assert isinstance(region.drawn, Runs)
        assert region.area == region.bits.sum() == region.runs.area


@pytest.mark.parametrize(
    ("segmentation", "code", "words"),
    [
        ({"size": [10, 20], "counts": [3, 4]}, SkipCode.MASK_INVALID, "add up to 7"),
        ({"size": [10, 20], "counts": [-3, 203]}, SkipCode.MASK_INVALID, "negative"),
        ({"size": [10, 20], "counts": [10**30]}, SkipCode.MASK_INVALID, "add up"),
        ({"size": [10, 20], "counts": []}, SkipCode.MASK_INVALID, "add up to 0"),
        ({"size": [10, 20], "counts": "é"}, SkipCode.MASK_INVALID, "ASCII"),
        ({"size": [10, 20], "counts": ""}, SkipCode.MASK_INVALID, "add up to 0"),
        ({"size": [20, 10], "counts": [0, 200]}, SkipCode.MASK_SIZE_MISMATCH, "10 x 20"),
        ({"size": [10, 20], "counts": [200]}, SkipCode.EMPTY_MASK, "no pixel"),
        ({"size": [10, 20], "counts": [0, 3, 197]}, SkipCode.BELOW_MIN_AREA, "3 pixels"),
        ([], SkipCode.MASK_INVALID, "no polygon"),
        ([[1, 1, 5, 5]], SkipCode.MASK_INVALID, "three points"),
        ([[1, 1, 5, 5, 9, 1], [1, 1], [1, 2, 3]], SkipCode.MASK_INVALID, "Polygon 2 has 3 numbers"),
        ([[1, 1], [1, 2, 3, 4]], SkipCode.MASK_INVALID, "Polygon 0 has 1 points"),
        (
            {"size": [10, 20], "counts": "b'02'"},
            SkipCode.MASK_INVALID,
            "shows of bytes (b'...'): write `counts.decode()`",
        ),
        ([[1, 1, 5, 5, 9, 1, 7]], SkipCode.MASK_INVALID, "pairs"),
        ([[math.nan, 1, 5, 5, 9, 1]], SkipCode.MASK_INVALID, "finite"),
        ([[-math.inf, 1, 5, 5, 9, 1]], SkipCode.MASK_INVALID, "finite"),
        ([[1e30, 1, 5, 5, 9, 1]], SkipCode.MASK_INVALID, "far outside"),
        ([[50, 1, 60, 5, 60, 1]], SkipCode.OUTSIDE_IMAGE, "outside"),
        ([[3, 3, 3.1, 3, 3, 3.1]], SkipCode.EMPTY_MASK, "thin"),
    ],
)
def test_what_cannot_be_scored_says_why(segmentation: Any, code: SkipCode, words: str) -> None:
    (skipped,) = find(segmentation, 10, 20, min_area=4)
    assert isinstance(skipped, SkippedRegion)
    assert skipped.code == code
    assert words in skipped.message


@pytest.mark.parametrize("convention", ["coco", "opencv"])
def test_stray_points_and_lines_among_polygons_are_left_out_everywhere(convention: str) -> None:
    good = [[2, 1, 9, 1, 9, 7, 2, 7], [12, 2, 17, 2, 14, 8]]
    strays = [[19, 9], good[0], [0, 0, 19, 9], good[1], []]
    fields = {"id": "m", "polygon_convention": convention}
    clean, mask = (Mask.model_validate({**fields, "segmentation": polygons}) for polygons in (good, strays))
    (region,) = find_regions([mask], height=10, width=20, min_area=1, split_components=False)
    (expected,) = find_regions([clean], height=10, width=20, min_area=1, split_components=False)
    assert isinstance(region, Region)
    assert isinstance(expected, Region)
    assert (region.box, region.bits.tolist()) == (expected.box, expected.bits.tolist())
    # The report and the export draw the same pixels.
    assert spans_of(mask, 10, 20) == spans_of(clean, 10, 20)
    component = Component(id="m", index=0, box=region.box, area=region.area)
    picture = component_bits(mask, component, region.box, (20, 10))
    assert (np.asarray(picture) > 0).tolist() == region.bits.tolist()
    written = CocoSegmentation([mask], height=10, width=20, checked=True).segmentation(component)
    assert convention != "coco" or written == good


@given(st.text(max_size=40) | st.lists(st.integers(-(2**70), 2**70), max_size=12))
def test_no_counts_break_the_decoder(counts: Any) -> None:
    (region,) = find({"size": [10, 20], "counts": counts}, 10, 20)
    if isinstance(region, Region):
        assert region.area == region.bits.sum() > 0


def test_order_is_kept_around_what_is_skipped() -> None:
    good = {"size": [10, 20], "counts": [0, 200]}
    masks: list[Mask | UnreadableMask] = [
        Mask.model_validate({"id": "a", "segmentation": good}),
        UnreadableMask("b", "why"),
        Mask.model_validate({"id": "c", "segmentation": good}),
    ]
    found = list(find_regions(masks, height=10, width=20, min_area=1, split_components=False))
    assert [(region.index, region.id) for region in found] == [(0, "a"), (1, "b"), (2, "c")]
    assert isinstance(found[1], SkippedRegion)
    assert found[1].message == "why"


def test_masks_say_which_frame_they_fit() -> None:
    masks = [
        mask_of({"size": [10, 20], "counts": [200]}),
        mask_of([[0, 0, 19, 0, 19, 5]]),
        mask_of([[0, 0, 5, 0, 5, 5]]),
    ]
    assert (count_fitting(masks, 10, 20), count_fitting(masks, 20, 10)) == (3, 1)
    check_sizes(masks, 10, 20)
    check_sizes([], 5, 5)
    with pytest.raises(JobError, match="20 x 10") as caught:
        check_sizes(masks[:1], 30, 40)
    assert caught.value.code == "mask_size_mismatch"
    assert "40 x 30" in str(caught.value)


def test_every_real_mask_is_decoded_as_coco_does(photos: Path) -> None:
    document = json.loads((photos / "instances.json").read_text())
    data = (photos / "instances.json").read_bytes()
    for image in document["images"]:
        height, width = image["height"], image["width"]
        masks = read_masks(data, image_name=image["file_name"])
        own = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        regions = find_regions(masks, height=height, width=width, min_area=1, split_components=False)
        for region, annotation in zip(regions, own, strict=True):
            assert isinstance(region, Region)
            assert region.id == str(annotation["id"])
            np.testing.assert_array_equal(
                pasted(region, (height, width)), decode(annotation["segmentation"], height, width)
            )
        sa1b = read_masks((photos / "sa1b" / f"{Path(image['file_name']).stem}.json").read_bytes())
        again = list(find_regions(sa1b, height=height, width=width, min_area=1, split_components=False))
        assert len(again) == len(own)
        areas = [mask.upstream["area"] for mask in sa1b]
        assert [region.area for region in again] == areas
