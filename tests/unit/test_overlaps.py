"""Copies and parts among masks are those that pycocotools finds when it compares all with all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from maskscore.masks.arrays import Displaced, find_displaced

Found = set[tuple[int, int, str, float]]


def random_masks(rng: np.random.Generator) -> list[Any]:
    """Up to 14 masks of one small image: rectangles and ellipses, copies of others with noise, parts of others."""
    height, width = rng.integers(8, 60, 2)
    rows, columns = np.mgrid[:height, :width]
    drawn: list[Any] = []
    for _ in range(rng.integers(2, 15)):
        if drawn and rng.random() < 0.5:
            bits = drawn[rng.integers(len(drawn))].copy()
            if rng.random() < 0.5:
                bits ^= rng.random(bits.shape) < rng.choice([0, 0.01, 0.05])
            else:
                bits[:, : rng.integers(width)] = False
        else:
            y, x = rng.integers(height), rng.integers(width)
            h, w = rng.integers(1, height + 1), rng.integers(1, width + 1)
            inside = (abs(rows - y) * 2 <= h) & (abs(columns - x) * 2 <= w)
            bits = inside if rng.random() < 0.5 else ((rows - y) / h) ** 2 + ((columns - x) / w) ** 2 <= 0.25
        if bits.any():
            drawn.append(bits)
    return [coco.encode(np.asfortranarray(bits, np.uint8)) for bits in drawn]


def displaced(rles: list[Any], **thresholds: float) -> list[Displaced]:
    boxes = [tuple(map(int, coco.toBbox(rle))) for rle in rles]
    return find_displaced(rles, [int(coco.area(rle)) for rle in rles], boxes, **thresholds)  # type: ignore[arg-type]


def brute_force(rles: list[Any], thresholds: dict[str, float]) -> Found:
    """Compare all with all, without a sieve, and go through them one by one."""
    found: Found = set()
    if not rles:
        return found
    areas = [int(coco.area(rle)) for rle in rles]
    ious = coco.iou(rles, rles, [False] * len(rles))
    shares = coco.iou(rles, rles, [True] * len(rles))  # of the first inside the second
    left = list(range(len(rles)))
    for rule, threshold in thresholds.items():
        if rule == "drop_parts":
            left.sort(key=lambda mask: (-areas[mask], mask))
        elif rule == "drop_wholes":
            left.sort(key=lambda mask: (areas[mask], mask))
        kept: list[int] = []
        for mask in left:
            for by in kept:
                overlap = {"nms": ious[mask, by], "drop_parts": shares[mask, by], "drop_wholes": shares[by, mask]}[rule]
                if overlap >= threshold:
                    found.add((mask, by, rule.replace("_", "-"), float(overlap)))
                    break
            else:
                kept.append(mask)
        left = sorted(kept)
    return found


def test_a_thousand_random_sets_as_by_brute_force() -> None:
    rng = np.random.default_rng(16)
    rules: set[str] = set()
    for number in range(1000):
        rles = random_masks(rng)
        thresholds = {"nms": float(rng.choice([0.3, 0.5, 0.8, 1.0]))} if number % 4 else {}
        further = [{}, {"drop_parts": 0.9}, {"drop_wholes": 0.7}, {"drop_parts": 1.0}]
        thresholds |= further[number % 3 + (number % 4 == 0)]
        found = [(entry.mask, entry.by, entry.rule, entry.overlap) for entry in displaced(rles, **thresholds)]
        assert len(found) == len(set(found))
        assert set(found) == brute_force(rles, thresholds), (number, thresholds)
        rules |= {rule for _, _, rule, _ in found}
    assert rules == {"nms", "drop-parts", "drop-wholes"}


def test_more_masks_than_a_table_has_rows() -> None:
    rng = np.random.default_rng(4)
    rles = []
    for _ in range(300):
        bits = np.zeros((64, 64), np.uint8, order="F")
        y, x = rng.integers(0, 56, 2)
        bits[y : y + rng.integers(3, 9), x : x + rng.integers(3, 9)] = 1
        rles.append(coco.encode(bits))
    for thresholds in ({"nms": 0.5}, {"nms": 0.9, "drop_parts": 0.8}, {"drop_wholes": 0.8}):
        found = {(entry.mask, entry.by, entry.rule, entry.overlap) for entry in displaced(rles, **thresholds)}
        assert found == brute_force(rles, thresholds)
        assert len(found) > 20


def test_many_parts_of_a_large_mask_are_compared_with_strips_of_it() -> None:
    rng = np.random.default_rng(5)
    whole = np.asfortranarray(rng.random((60, 120)) < 0.9, np.uint8)
    rles = [coco.encode(whole)]
    for _ in range(200):
        bits = np.zeros((60, 120), np.uint8, order="F")
        y, x = rng.integers(0, 56), rng.integers(0, 118)
        bits[y : y + rng.integers(2, 9), x : x + rng.choice([2, 5, 60])] = 1
        rles.append(coco.encode(bits))
    for thresholds in ({"drop_parts": 0.9}, {"nms": 0.7, "drop_parts": 0.8}):
        found = {(entry.mask, entry.by, entry.rule, entry.overlap) for entry in displaced(rles, **thresholds)}
        assert found == brute_force(rles, thresholds)
        assert sum(by == 0 for _, by, *_ in found) > 40


@pytest.mark.parametrize("threshold", [0.5, 1 / 3, 0.1, 1.0])
def test_an_overlap_of_exactly_the_threshold_counts(threshold: float) -> None:
    large, small = np.zeros((30, 1), np.uint8, order="F"), np.zeros((30, 1), np.uint8, order="F")
    large[:30] = 1
    small[: round(30 * threshold)] = 1
    rles = [coco.encode(large), coco.encode(small)]
    (found,) = displaced(rles, nms=threshold)
    assert (found.mask, found.by, found.rule) == (1, 0, "nms")
    assert found.overlap == threshold


def test_a_displaced_mask_displaces_none() -> None:
    """Of three in a row that overlap pairwise, the third is kept: the second, which it overlaps, is left out."""
    rles = []
    for start in (0, 3, 6):
        bits = np.zeros((20, 1), np.uint8, order="F")
        bits[start : start + 10] = 1
        rles.append(coco.encode(bits))
    assert [(entry.mask, entry.by) for entry in displaced(rles, nms=0.5)] == [(1, 0)]
    assert displaced([], nms=0.5) == []
    assert displaced(rles[:1], nms=0.5, drop_parts=0.5) == []
