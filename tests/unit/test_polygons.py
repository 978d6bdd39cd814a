"""Polygons are filled as pycocotools fills them, to the bit."""

from __future__ import annotations

import math
import tracemalloc
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from maskscore.errors import SkipCode
from maskscore.masks.arrays import TooMuchWork, bits_in_box, box_of_runs, polygon_runs
from maskscore.masks.arrays import polygons as rasteriser
from maskscore.schema.job import Mask
from maskscore_worker.masks.regions import Region, SkippedRegion, find_regions

Bits = npt.NDArray[np.bool_]
Polygon = list[float]


def drawn(polygons: list[Polygon], height: int, width: int) -> Bits:
    runs = polygon_runs([np.asarray(polygon, np.float64) for polygon in polygons], height, width)
    picture = np.zeros((height, width), bool)
    if len(runs.starts):
        assert (runs.stops > runs.starts).all()
        assert (runs.starts[1:] >= runs.stops[:-1]).all()
        box = x, y, box_width, box_height = box_of_runs(runs, height)
        bits = bits_in_box(runs, box, height)
        picture[y : y + box_height, x : x + box_width] = bits
        assert all(edge.any() for edge in (bits[0], bits[-1], bits[:, 0], bits[:, -1]))
    return picture


def cocos(polygons: list[Polygon], height: int, width: int) -> Bits:
    decoded: Bits = coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))).astype(bool)
    return decoded


def assert_as_coco(polygons: list[Polygon], height: int, width: int) -> None:
    np.testing.assert_array_equal(drawn(polygons, height, width), cocos(polygons, height, width))


# Whole and half pixels, tenths (where the fine grid's roundings are decided), anything, and far outside.
near = st.one_of(
    st.integers(-3, 45).map(float),
    st.integers(-30, 450).map(lambda n: n / 10),
    st.integers(-6, 90).map(lambda n: n / 2),
    st.floats(-5, 45),
    st.sampled_from([0.0, -0.0, 0.1, -0.1, 29.9, 30.0, 30.1, 39.9, 40.0, 40.1, 0.5 - 2**-54]),
)
coordinate = near | st.floats(-400, 400)
sides = st.integers(1, 40)


def flat(corners: list[tuple[float, float]]) -> Polygon:
    return list(chain.from_iterable(corners))


polygon = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=14).map(flat)
# Doubled corners, edges there and back, all on one line.
degenerate = st.lists(
    st.sampled_from([(1.0, 1.0), (9.5, 1.0), (9.5, 20.0), (1.0, 30.0), (40.0, 30.0)]), min_size=3
).map(flat)


@settings(max_examples=200)
@given(st.lists(polygon | degenerate, min_size=1, max_size=4), sides, sides)
@example([[0, 0, 40, 0, 40, 30, 0, 30]], 30, 40)
@example([[-10, -10, 50, -10, 50, 40, -10, 40]], 30, 40)
@example([[0, 0, 39, 29, 39, 0, 0, 29]], 30, 40)
@example([[3, 3, 3, 3, 3, 3]], 30, 40)
@example([[0, 0, 10, 0, 10, 10, 0, 10], [5, 5, 15, 5, 15, 15, 5, 15]], 30, 40)
def test_every_polygon_is_drawn_as_coco_draws_it(polygons: list[Polygon], height: int, width: int) -> None:
    assert_as_coco(polygons, height, width)


def test_many_random_polygons_are_drawn_as_coco_draws_them() -> None:
    random = np.random.default_rng(7)
    for number in range(1500):
        height, width = random.integers(1, 200, 2)
        spread = random.choice([0.1, 0.5, 1.0, 3.0, 9.0])
        points = (random.random((random.integers(3, 40), 2)) - 0.5) * spread * (width, height) + (width / 2, height / 2)
        decimals = number % 4
        points = points.round(decimals) if decimals < 3 else points
        assert_as_coco([points.ravel().tolist()], int(height), int(width))


def test_a_large_outline_is_cut_into_pieces_and_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = np.linspace(0, 40 * np.pi, 900)
    outline = np.stack([200 + (turns + 9) * np.cos(turns), 150 + turns * np.sin(turns)], 1).ravel().tolist()
    expected = cocos([outline], 300, 400)
    for piece in (1, 7, 1000):
        monkeypatch.setattr(rasteriser, "_PIECE", piece)
        np.testing.assert_array_equal(drawn([outline], 300, 400), expected)


def zigzag(edges: int, height: int, width: int, far: float) -> Polygon:
    """Long edges up and down, from one side to the other, each much longer than the image."""
    return list(chain.from_iterable((width * (n % 2) - n / edges, far * height * (-1) ** n) for n in range(edges)))


def find(segmentation: Any, height: int, width: int) -> Region | SkippedRegion:
    mask = Mask.model_validate({"id": "m", "segmentation": segmentation})
    (region,) = find_regions([mask], height=height, width=width, min_area=1, split_components=False)
    return region


def test_a_zigzag_that_overflows_cocos_rasteriser_is_drawn_or_refused_in_little_memory() -> None:
    """About 200 KB of JSON; pycocotools takes 10**9 steps for it, and all memory."""
    tracemalloc.start()
    try:
        refused = find([zigzag(10_000, 1500, 2250, 9.9)], 1500, 2250)
        assert isinstance(refused, SkippedRegion)
        assert refused.code == SkipCode.MASK_INVALID
        assert "cross" in refused.message
        assert isinstance(find([zigzag(800, 1500, 2250, 9.9)], 1500, 2250), Region)
        assert tracemalloc.get_traced_memory()[1] < 250_000_000
    finally:
        tracemalloc.stop()


def test_edges_far_outside_the_image_cost_nothing() -> None:
    aside = [value for n in range(50_000) for value in (-1e6 - n % 2, 1e6 * (-1) ** n)]
    runs = polygon_runs([np.asarray([*aside, 5.0, 5.0, 9.0, 9.0])], 10, 20)
    assert len(runs.starts) <= 20


def test_too_much_work_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rasteriser, "MOST_CROSSINGS", 19)
    with pytest.raises(TooMuchWork, match="20 times; at most 19"):
        polygon_runs([np.asarray([0.0, 0, 10, 0, 10, 10, 0, 10])], 10, 20)


def test_many_small_parts_are_one_mask() -> None:
    parts = [[x, y, x + 3.0, y, x + 3.0, y + 3.0, x, y + 3.0] for x in range(0, 200, 4) for y in range(0, 200, 2)]
    assert_as_coco([[float(value) for value in part] for part in parts], 200, 200)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, -1e30])
def test_numbers_that_cannot_be_drawn_are_refused_before(value: float) -> None:
    for place in range(6):
        points = [1.0, 1.0, 9.0, 1.0, 9.0, 9.0]
        points[place] = value
        region = find([points], 10, 20)
        assert isinstance(region, SkippedRegion)
        assert region.code == SkipCode.MASK_INVALID
