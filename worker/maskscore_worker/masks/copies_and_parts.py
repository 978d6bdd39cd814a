"""Copies among the masks of a job, and parts beside their wholes, found before anything is computed for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from maskscore.errors import FailureCode, JobError, SkipCode
from maskscore.masks.arrays import box_of_runs, find_displaced, rle_of_runs
from maskscore_worker.masks.regions import AnyMask, Unusable, decode_mask

__all__ = ["UPSTREAM_SCORES", "find_copies_and_parts"]

UPSTREAM_SCORES: Final = ("predicted_iou", "score", "confidence", "stability_score")
"""Fields of upstream tools that say how good a mask is; the first of them that a job's masks have is taken."""


def find_copies_and_parts(
    masks: Sequence[AnyMask],
    *,
    height: int,
    width: int,
    min_area: int,
    nms: float | None,
    drop_parts: float | None,
    has_two_frames: bool = False,
) -> dict[int, tuple[SkipCode, str]]:
    """Return the positions of masks that are copies or parts of others, each with a sentence that names the other one.

    From the best to the worst by the upstream score, a mask is a copy whose IoU with one that is kept is at least
    ``nms``; then, from the largest to the smallest, a mask is a part of which at least the share ``drop_parts`` lies
    inside a kept larger one (:func:`maskscore.masks.arrays.find_displaced`). Of equally good ones the first is kept;
    masks without a score come last. Masks that cannot be used, or are of fewer than ``min_area`` pixels, are not
    compared. ``height``, ``width`` and ``has_two_frames`` are those of :func:`find_regions`.

    Raises :class:`~maskscore.errors.JobError` (``upstream_score_missing``) where there are masks to compare for
    ``nms``, and none has such a score. Memory: the masks' runs, compressed.
    """
    usable, rles, areas, boxes = [], [], [], []
    for index, mask in enumerate(masks):
        try:
            runs = decode_mask(mask, height, width, has_two_frames=has_two_frames)
        except Unusable:
            continue
        if runs.area < min_area:
            continue
        usable.append(index)
        # Encoded anew: pycocotools stops early where runs of no pixel meet, which others' counts may have.
        rles.append(rle_of_runs(runs, height, width).model_dump())
        areas.append(runs.area)
        boxes.append(box_of_runs(runs, height))
    if len(usable) < 2:
        return {}
    names = (name for name in UPSTREAM_SCORES if any(_score(masks[index], name) > -math.inf for index in usable))
    name = next(names, "")
    if nms is not None and not name:
        raise JobError(
            FailureCode.UPSTREAM_SCORE_MISSING,
            f"`nms` keeps the best of several copies of a mask, but no mask has a score to tell which that is: "
            f"{', '.join(UPSTREAM_SCORES[:-1])} or {UPSTREAM_SCORES[-1]}. Leave `nms` out, and remove copies by the "
            "computed scores: `maskscore export --nms`.",
        )
    order = sorted(range(len(usable)), key=lambda place: -_score(masks[usable[place]], name))
    found = find_displaced(
        [rles[place] for place in order],
        [areas[place] for place in order],
        [boxes[place] for place in order],
        nms=nms,
        drop_parts=drop_parts,
    )
    displaced = {}
    for entry in found:
        other = masks[usable[order[entry.by]]].id
        if entry.rule == "nms":
            code = SkipCode.DUPLICATE_MASK
            message = (
                f"The mask is a copy of the mask {other!r:.60}: their IoU is {entry.overlap:.3f} (nms {nms:g}), and "
                f"that one's {name} is not lower."
            )
        else:
            code = SkipCode.PART_OF_MASK
            message = (
                f"The mask is a part of the mask {other!r:.60}: {entry.overlap:.3f} of it lies inside (drop_parts "
                f"{drop_parts:g})."
            )
        displaced[usable[order[entry.mask]]] = code, message
    return displaced


def _score(mask: AnyMask, name: str) -> float:
    value: Any = mask.upstream.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return -math.inf
    try:
        return float(value) if math.isfinite(value) else -math.inf
    except OverflowError:
        return -math.inf
