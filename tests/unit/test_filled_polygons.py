"""Polygons through the middles of pixels (Ultralytics, supervision) are filled as OpenCV fills them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mask_files import drawn, shapes
from maskscore.formats import read_masks
from maskscore.imaging.mask_pictures import component_bits
from maskscore.masks.components import spans_of
from maskscore.parts import CocoSegmentation
from maskscore.schema.job import RLE, Mask, parse_job
from maskscore.schema.result import Component
from maskscore_worker.masks.regions import Region, find_regions

Bits = npt.NDArray[np.bool_]
SIZE = (40, 60)
points = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 22)), min_size=3, max_size=9)
loose = st.lists(st.tuples(st.floats(-20, 60), st.floats(-20, 60)), min_size=3, max_size=9)


def opencv(*outlines: Any) -> Mask:
    flat = [[number for point in outline for number in point] for outline in outlines]
    return Mask(id="a", segmentation=flat, polygon_convention="opencv")


def mask_in_box(mask: Mask, height: int, width: int) -> Bits:
    """Return what the worker draws."""
    (region,) = find_regions([mask], height=height, width=width, min_area=1, split_components=False)
    assert isinstance(region, Region)
    mask_picture = np.zeros((height, width), bool)
    x, y, w, h = region.box
    mask_picture[y : y + h, x : x + w] = region.bits
    return mask_picture


def by_the_rule(outline: list[tuple[int, int]], height: int, width: int) -> Bits:
    """Draw pixel by pixel: 8-connected lines as OpenCV's, and inside is what an odd number of edges lies above."""
    mask_picture = np.zeros((height, width), bool)
    edges = [sorted(edge) for edge in zip(outline, outline[1:] + outline[:1], strict=True)]
    for (xs, ys), (xe, ye) in edges:
        dx, dy, sign = xe - xs, abs(ye - ys), 1 if ye >= ys else -1
        major, minor = max(dx, dy), min(dx, dy)
        error, across = major - 2 * minor, 0
        for along in range(major + 1):
            step_x, step_y = (along, across) if dx >= dy else (across, along)
            mask_picture[ys + sign * step_y, xs + step_x] = True
            across += error < 0
            error += 2 * major - 2 * minor if error < 0 else -2 * minor
    for y in range(height):
        for x in range(width):
            above = [ys + (ye - ys) * (x - xs) / (xe - xs) <= y for (xs, ys), (xe, ye) in edges if xs <= x < xe]
            mask_picture[y, x] |= sum(above) % 2 == 1
    return mask_picture


@given(points)
def test_the_worker_draws_by_opencvs_rule(outline: list[tuple[int, int]]) -> None:
    np.testing.assert_array_equal(mask_in_box(opencv(outline), 23, 31), by_the_rule(outline, 23, 31))


@given(st.lists(loose, min_size=1, max_size=3), st.integers(1, 40), st.integers(1, 40))
def test_export_and_report_draw_what_the_worker_drew(outlines: list[Any], height: int, width: int) -> None:
    mask = opencv(*outlines)
    (region,) = find_regions([mask], height=height, width=width, min_area=1, split_components=False)
    spans = spans_of(mask, height, width)
    if not isinstance(region, Region):
        assert not spans
        return
    assert spans == list(zip(region.runs.starts.tolist(), region.runs.stops.tolist(), strict=True))
    component = Component.model_validate({"index": 0, "id": "a", "box": region.box, "area": region.area})
    exported = CocoSegmentation([mask], height=height, width=width, checked=True).segmentation(component)
    whole = drawn(Mask(id="a", segmentation=exported))
    x, y, w, h = region.box
    np.testing.assert_array_equal(whole[y : y + h, x : x + w], region.bits)
    assert whole.sum() == region.area
    picture = component_bits(mask, component, region.box, (width, height))
    np.testing.assert_array_equal(np.asarray(picture) > 0, region.bits)


def outline_around(mask: Bits) -> list[tuple[int, int]]:
    """Return the outline of a mask whose rows are of one piece, and begin and end a pixel at most beside the others."""
    rows = np.flatnonzero(mask.any(axis=1))
    left = [(int(np.flatnonzero(mask[row])[0]), int(row)) for row in rows]
    right = [(int(np.flatnonzero(mask[row])[-1]), int(row)) for row in rows]
    return left + right[::-1]


def yolo(outline: list[tuple[int, int]], *more: object) -> str:
    # Ultralytics writes "%g", six digits.
    return " ".join(["16", *(f"{x / SIZE[1]:g} {y / SIZE[0]:g}" for x, y in outline), *map(str, more)])


def test_files_of_outlines_give_the_true_masks() -> None:
    rows, columns = np.mgrid[:40, :60]
    true = [abs(rows - 15) + abs(columns - 22) < 9, shapes()[2]]
    outlines = [outline_around(mask) for mask in true]
    outlines[1] = 3 * outlines[1]
    segments = [{"x": [x for x, _ in outline], "y": [y for _, y in outline]} for outline in outlines]
    normalised = [{"x": [x / 60 for x, _ in outline], "y": [y / 40 for _, y in outline]} for outline in outlines]
    files = [
        "\n".join(map(yolo, outlines)).encode(),
        json.dumps([{"name": "a", "segments": segment} for segment in segments]).encode(),
        json.dumps([{"name": "a", "segments": segment} for segment in normalised]).encode(),
    ]
    for data in files:
        masks = read_masks(data, size=SIZE)
        for mask, mask_picture in zip(masks, true, strict=True):
            assert isinstance(mask, Mask)
            np.testing.assert_array_equal(mask_in_box(mask, *SIZE), mask_picture)


def test_the_convention_travels_with_the_mask_and_is_written_only_where_it_is() -> None:
    job = {"image": "s3://b/a.jpg", "masks": [{"id": "a", "segmentation": [[0.0, 0.0, 4.0, 0.0, 4.0, 4.0]]}]}
    plain = parse_job(json.dumps(job))
    assert "polygon" not in plain.model_dump_json()
    job["masks"][0]["polygon_convention"] = "opencv"  # type: ignore[index]
    told = parse_job(parse_job(json.dumps(job)).model_dump_json())
    assert isinstance(told.masks, list)
    assert told.masks[0].polygon_convention == "opencv"
    assert told.masks[0].upstream == {}
    component = Component.model_validate({"index": 0, "id": "a", "box": [0, 0, 5, 5], "area": 15})
    exported = CocoSegmentation(told.masks, height=9, width=9, checked=True).segmentation(component)
    assert isinstance(RLE.model_validate(exported), RLE)


SQUARE = [(10, 10), (20, 10), (20, 20), (10, 20)]


@pytest.mark.parametrize(
    ("ends", "fields"),
    [
        ([(), ()], [{}, {}]),
        ([(1,), (2,)], [{"track_id": 1}, {"track_id": 2}]),
        ([(1,)], [{"track_id": 1}]),
        ([(1,), (1,)], [{"confidence": 1}, {"confidence": 1}]),
        ([(1,), (0.5,)], [{"confidence": 1}, {"confidence": 0.5}]),
        ([(0.9, 1), (0.8, 2)], [{"confidence": 0.9, "track_id": 1}, {"confidence": 0.8, "track_id": 2}]),
        ([(0.9, 7)], [{"confidence": 0.9, "track_id": 7}]),
        ([(0.5, 1), (1, 1)], [{}, {}]),
        ([(0.9,), (0.8, 3)], [{"confidence": 0.9}, {"confidence": 0.8, "track_id": 3}]),
    ],
)
def test_what_follows_the_polygon_is_the_same_in_each_line(
    ends: list[tuple[float, ...]], fields: list[dict[str, Any]]
) -> None:
    data = "\n".join(yolo(SQUARE, *end) for end in ends).encode()
    masks = read_masks(data, size=SIZE)
    assert [mask.upstream for mask in masks] == [{"class": 16, **own} for own in fields]
    for mask, own, end in zip(masks, fields, ends, strict=True):
        assert isinstance(mask, Mask)
        assert isinstance(mask.segmentation, list)
        assert len(mask.segmentation[0]) == 8 + len(end) - len(own)
