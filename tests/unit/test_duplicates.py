"""Copies among a job's masks are found by the upstream score, before anything is computed for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maskscore.errors import FailureCode, JobError, SkipCode
from maskscore.export.copies import pycocotools_rle
from maskscore.formats import UnreadableMask
from maskscore.masks import encode_mask
from maskscore.masks.arrays import find_displaced
from maskscore.schema import Mask, text_from_counts
from maskscore_worker.masks import Region, SkippedRegion, find_duplicates, find_regions

HEIGHT, WIDTH = 40, 60


def block(x: int, y: int, width: int = 10, height: int = 10) -> Any:
    bits = np.zeros((HEIGHT, WIDTH), np.bool_)
    bits[y : y + height, x : x + width] = True
    return encode_mask(bits).model_dump()


def duplicates(masks: list[Any], **options: Any) -> dict[int, str]:
    settings = {"height": HEIGHT, "width": WIDTH, "min_area": 1, "nms": 0.5, **options}
    return find_duplicates(masks, **settings)


def mask_of(mask_id: str, segmentation: Any, **upstream: Any) -> Mask:
    return Mask.model_validate({"id": mask_id, "segmentation": segmentation, **upstream})


def test_the_better_one_is_kept_whatever_its_place() -> None:
    polygon = [[5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0]]
    masks: list[Mask | UnreadableMask] = [
        mask_of("first", block(5, 5), predicted_iou=0.7),
        mask_of("moved", block(6, 5), predicted_iou=0.9),
        UnreadableMask("bad", "It is none.", {"predicted_iou": 1.0}),
        mask_of("outline", polygon, predicted_iou="0.99"),
        mask_of("elsewhere", block(40, 20), predicted_iou=0.1),
        mask_of("other size", {"size": [3, 3], "counts": [0, 9]}, predicted_iou=1.0),
    ]
    found = duplicates(masks)
    assert found.keys() == {0, 3}
    assert found[0] == (
        "The mask is a copy of the mask 'moved': their IoU is 0.818 (nms 0.5), and that one's predicted_iou is not "
        "lower."
    )
    assert duplicates(masks, nms=0.9).keys() == {3}
    assert duplicates(masks, min_area=101) == {}
    regions = list(find_regions(masks, height=HEIGHT, width=WIDTH, min_area=1, split_components=True, duplicates=found))
    skipped = {region.id: region.code for region in regions if isinstance(region, SkippedRegion)}
    assert skipped == {
        "first": SkipCode.DUPLICATE_MASK,
        "outline": SkipCode.DUPLICATE_MASK,
        "bad": SkipCode.MASK_INVALID,
        "other size": SkipCode.MASK_SIZE_MISMATCH,
    }
    assert [region.id for region in regions if isinstance(region, Region)] == ["moved", "elsewhere"]
    (copy,) = (region for region in regions if region.id == "first")
    assert (copy.box, copy.area) == ((5, 5, 10, 10), 100)


def test_the_score_is_the_first_that_the_masks_have() -> None:
    masks = [
        mask_of("a", block(5, 5), score=0.2, stability_score=0.9),
        mask_of("b", block(5, 5), score=0.8, stability_score=0.1),
        mask_of("c", block(5, 5), score=True, stability_score=1.0, predicted_iou=None),
    ]
    assert duplicates(masks).keys() == {0, 2}
    assert "that one's score is" in duplicates(masks)[0]
    equal = [mask_of(name, block(5, 5), confidence=0.5) for name in "ab"]
    assert duplicates(equal).keys() == {1}


def test_masks_without_a_score_cannot_be_compared() -> None:
    masks = [mask_of("a", block(5, 5)), mask_of("b", block(5, 5), category_id=3)]
    with pytest.raises(JobError, match="no mask has a score to tell which that is: predicted_iou") as caught:
        duplicates(masks)
    assert caught.value.code == FailureCode.UPSTREAM_SCORE_MISSING
    assert duplicates(masks[:1]) == {}
    assert duplicates([]) == {}


def test_runs_of_no_pixel_are_no_end() -> None:
    """pycocotools compares two masks up to where such runs of both meet."""
    pixels = HEIGHT * WIDTH
    first: dict[str, Any] = {"size": [HEIGHT, WIDTH], "counts": [0, 10, 0, 0, 0, 30, pixels - 40]}
    second: dict[str, Any] = {"size": [HEIGHT, WIDTH], "counts": [0, 10, 0, 0, 0, 10, pixels - 20]}
    masks = [mask_of("long", first, score=1), mask_of("short", second, score=0.5)]
    assert duplicates(masks, nms=0.5).keys() == {1}
    assert duplicates(masks, nms=0.51) == {}
    texts = [{**rle, "counts": text_from_counts(rle["counts"])} for rle in (first, second)]
    rles = [pycocotools_rle(rle, HEIGHT, WIDTH) for rle in texts]
    (found,) = find_displaced(rles, [40, 20], [(0, 0, 1, 40), (0, 0, 1, 20)], nms=0.5)
    assert found.overlap == 0.5
