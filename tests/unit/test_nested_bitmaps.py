"""Masks given as nested lists of H rows of W values."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mask_files import Bits, drawn, shapes
from maskscore.formats import from_sam, read_dataset, read_masks
from maskscore.schema.job import Job, Mask, parse_job

SIZE = (40, 60)


def as_numbers(mask: Bits) -> list[list[int]]:
    return [[int(value) for value in row] for row in mask]


SPELLINGS: dict[str, Callable[[Bits], Any]] = {
    "booleans": lambda mask: mask.tolist(),
    "0 and 1": as_numbers,
    "0 and 255": lambda mask: (255 * mask.astype(np.uint8)).tolist(),
    "0.0 and 1.0": lambda mask: mask.astype(float).tolist(),
    "0 and a class": lambda mask: (17 * mask.astype(np.uint8)).tolist(),
    "a stack of one": lambda mask: mask[None].tolist(),
}


MASKS = dict(zip(("disc", "parts", "pixel", "full"), [*shapes(), np.ones(SIZE, bool)], strict=True))


# A bitmap that is a class all over has no background to tell it from.
@pytest.mark.parametrize(
    ("spelling", "shape"), [pair for pair in product(SPELLINGS, MASKS) if pair != ("0 and a class", "full")]
)
def test_nested_lists_are_a_bitmap(spelling: str, shape: str) -> None:
    spelt, mask = SPELLINGS[spelling], MASKS[shape]
    np.testing.assert_array_equal(drawn(Mask(id="a", segmentation=spelt(mask))), mask)


def test_bitmaps_are_read_in_every_layout(tmp_path: Path) -> None:
    masks = shapes()
    records = [{"segmentation": mask.tolist(), "predicted_iou": 0.9, "stability_score": 0.8} for mask in masks]
    annotations = [{"id": number, "image_id": 1, "segmentation": as_numbers(mask)} for number, mask in enumerate(masks)]
    coco = {"images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}], "annotations": annotations}
    job = {"image": "s3://b/a.jpg", "masks": [{"id": "a", "segmentation": masks[0].tolist()}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (image,) = read_dataset(tmp_path / "coco.json")
    inline = parse_job(json.dumps(job)).masks
    assert isinstance(inline, list)
    read: list[list[Any]] = [
        read_masks(json.dumps(records).encode()),
        read_masks(json.dumps({"masks": records}).encode()),
        read_masks(json.dumps({"image": {"image_id": 1}, "annotations": annotations}).encode()),
        read_masks(json.dumps(coco).encode()),
        image.masks,
        from_sam(records),
        inline,
    ]
    for found in read:
        for mask, bits in zip(found, masks, strict=found is not inline):
            np.testing.assert_array_equal(drawn(mask), bits)


@pytest.mark.parametrize(
    "polygons",
    [
        [[0, 0, 1, 0, 1, 1, 0, 1]],
        [[0, 0, 255, 0, 255, 255, 0, 255]],
        [[0, 0, 9, 0, 9, 9], [0, 0, 0, 9, 9, 9]],
        [[5, 5, 9, 5, 9, 9], [0, 0, 0, 9, 9, 9]],
        [[0, 0, 5, 0, 5, 5]] * 70,
        [[0, 0, 5, 0, 5, 5, 0, 5, 0, 0]] * 4,
        [],
    ],
)
def test_polygons_stay_polygons(polygons: list[list[int]]) -> None:
    assert Mask(id="a", segmentation=polygons).segmentation == polygons


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([[True, False], [True]], "not all equally long"),
        ([[True, "x"], [True, False]], "other values"),
        ([[True, [1]], [True, False]], "other values"),
        ([[True, False], 5], "not all equally long"),
    ],
)
def test_a_damaged_bitmap_says_what_is_wrong(rows: Any, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Job(image="s3://b/a.jpg", masks=[{"id": "a", "segmentation": rows}])
