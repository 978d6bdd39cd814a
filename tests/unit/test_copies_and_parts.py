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
from maskscore_worker.masks import Region, SkippedRegion, find_copies_and_parts, find_regions

HEIGHT, WIDTH = 40, 60


def block(x: int, y: int, width: int = 10, height: int = 10) -> Any:
    bits = np.zeros((HEIGHT, WIDTH), np.bool_)
    bits[y : y + height, x : x + width] = True
    return encode_mask(bits).model_dump()


def displaced(masks: list[Any], **options: Any) -> dict[int, tuple[SkipCode, str]]:
    settings = {"height": HEIGHT, "width": WIDTH, "min_area": 1, "nms": 0.5, "drop_parts": None, **options}
    return find_copies_and_parts(masks, **settings)


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
    found = displaced(masks)
    assert found.keys() == {0, 3}
    assert found[0] == (
        SkipCode.DUPLICATE_MASK,
        "The mask is a copy of the mask 'moved': their IoU is 0.818 (nms 0.5), and that one's predicted_iou is not "
        "lower.",
    )
    assert displaced(masks, nms=0.9).keys() == {3}
    assert displaced(masks, min_area=101) == {}
    regions = list(find_regions(masks, height=HEIGHT, width=WIDTH, min_area=1, split_components=True, displaced=found))
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
    assert displaced(masks).keys() == {0, 2}
    assert "that one's score is" in displaced(masks)[0][1]
    equal = [mask_of(name, block(5, 5), confidence=0.5) for name in "ab"]
    assert displaced(equal).keys() == {1}


def test_masks_without_a_score_cannot_be_compared() -> None:
    masks = [mask_of("a", block(5, 5)), mask_of("b", block(5, 5), category_id=3)]
    with pytest.raises(JobError, match="no mask has a score to tell which that is: predicted_iou") as caught:
        displaced(masks)
    assert caught.value.code == FailureCode.UPSTREAM_SCORE_MISSING
    assert displaced(masks[:1]) == {}
    assert displaced([]) == {}


def test_runs_of_no_pixel_are_no_end() -> None:
    """pycocotools compares two masks up to where such runs of both meet."""
    pixels = HEIGHT * WIDTH
    first: dict[str, Any] = {"size": [HEIGHT, WIDTH], "counts": [0, 10, 0, 0, 0, 30, pixels - 40]}
    second: dict[str, Any] = {"size": [HEIGHT, WIDTH], "counts": [0, 10, 0, 0, 0, 10, pixels - 20]}
    masks = [mask_of("long", first, score=1), mask_of("short", second, score=0.5)]
    assert displaced(masks, nms=0.5).keys() == {1}
    assert displaced(masks, nms=0.51) == {}
    texts = [{**rle, "counts": text_from_counts(rle["counts"])} for rle in (first, second)]
    rles = [pycocotools_rle(rle, HEIGHT, WIDTH) for rle in texts]
    (found,) = find_displaced(rles, [40, 20], [(0, 0, 1, 40), (0, 0, 1, 20)], nms=0.5)
    assert found.overlap == 0.5


def test_a_part_is_skipped_beside_its_whole_and_needs_no_score() -> None:
    masks = [mask_of("part", block(6, 6, 4, 4)), mask_of("whole", block(5, 5)), mask_of("beside", block(40, 20, 4, 4))]
    found = displaced(masks, nms=None, drop_parts=0.9)
    message = "The mask is a part of the mask 'whole': 1.000 of it lies inside (drop_parts 0.9)."
    assert found == {0: (SkipCode.PART_OF_MASK, message)}
    regions = find_regions(masks, height=HEIGHT, width=WIDTH, min_area=1, split_components=False, displaced=found)
    (skipped,) = (region for region in regions if isinstance(region, SkippedRegion))
    assert (skipped.id, skipped.code, skipped.area) == ("part", SkipCode.PART_OF_MASK, 16)
    # A copy of the whole is skipped first, and displaces nothing.
    scored = [mask_of("copy", block(5, 5), score=0.1), *(mask.model_copy(update={"score": 0.9}) for mask in masks)]
    both = displaced(scored, nms=0.9, drop_parts=0.9)
    assert {place: code for place, (code, _) in both.items()} == {0: SkipCode.DUPLICATE_MASK, 1: SkipCode.PART_OF_MASK}
