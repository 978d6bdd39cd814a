"""Copies among the masks of an image, and parts beside their wholes: exact on RLE, with boxes and areas as a sieve.

Intersections are pycocotools' (https://github.com/cocodataset/cocoapi, ``rleIou`` in ``maskApi.c``), so the numbers are
those of its ``mask.iou``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from maskscore.schema import Box

__all__ = ["Displaced", "find_displaced"]

Rule = Literal["nms", "drop-parts", "drop-wholes"]

# Rows of the table of all pairs that are in memory at a time.
_ROWS = 128
# Strips of a large mask that many small ones are compared with.
_STRIPS, _IN_A_STRIP, _NARROW = 8, 16, 0.2


@dataclass(frozen=True, slots=True)
class Displaced:
    """A mask that is left out, the mask that is kept in its place (positions), by which rule, and their overlap.

    ``overlap`` is the IoU for ``nms``, and for the other rules the share of the smaller mask inside the larger one.
    """

    mask: int
    by: int
    rule: Rule
    overlap: float


def find_displaced(
    rles: Sequence[Mapping[str, Any]],
    areas: Sequence[int],
    boxes: Sequence[Box],
    *,
    nms: float | None = None,
    drop_parts: float | None = None,
    drop_wholes: float | None = None,
) -> list[Displaced]:
    """Return the masks of one image that others displace, in the order in which they are left out.

    ``rles`` are pycocotools' (``{"size": [height, width], "counts": bytes or str}``), all of one size, valid, and none
    empty, the best first; ``areas`` (pixels) and ``boxes`` (XYWH) are theirs. First ``nms``: from the best to the
    worst, a mask is left out whose IoU with a kept one is at least ``nms``. Then, of those left, ``drop_parts``: from
    the largest to the smallest, a mask is left out of which at least this share lies inside a kept larger one; or
    ``drop_wholes``: from the smallest to the largest, a mask is left out in which at least this share of a kept smaller
    one lies. Of equally large masks the better one is kept. Thresholds are above 0, and at most 1.

    Memory grows with the number of masks, and not with that of the pairs. Needs pycocotools.
    """
    masks = [dict(rle) for rle in rles]
    sizes, corners = np.asarray(areas, np.int64), np.asarray(boxes, np.float64).reshape(-1, 4)
    left = np.arange(len(masks))
    found: list[Displaced] = []
    steps: tuple[tuple[Rule, float | None, int], ...] = (
        ("nms", nms, 0),
        ("drop-parts", drop_parts, -1),
        ("drop-wholes", drop_wholes, 1),
    )
    for rule, threshold, direction in steps:
        if threshold is None:
            continue
        # A stable sort keeps the better first where areas are equal, and for NMS all in their order.
        order = left[np.argsort(direction * sizes[left], kind="stable")]
        gone = _greedy(masks, order, sizes, corners, rule, threshold)
        found += gone
        left = np.setdiff1d(left, [entry.mask for entry in gone])
    return found


def _greedy(
    masks: list[dict[str, Any]],
    order: npt.NDArray[np.int64],
    areas: npt.NDArray[np.int64],
    boxes: npt.NDArray[np.float64],
    rule: Rule,
    threshold: float,
) -> list[Displaced]:
    """Go through the masks in order; each that is kept displaces those after it that it overlaps enough."""
    from pycocotools import mask as coco

    gone = np.zeros(len(order), np.bool_)
    sieve = _Sieve(areas[order], boxes[order], rule, threshold)
    found = []
    for first in range(0, len(order), _ROWS):
        left = first + np.flatnonzero(~gone[first:])
        rows = left[left < first + _ROWS]
        for number, (row, allowed) in enumerate(zip(rows, sieve.allowed(rows, left), strict=True)):
            if gone[row]:
                continue
            behind = left[number + 1 :][allowed[number + 1 :]]
            behind = behind[~gone[behind]]
            if not len(behind):
                continue
            own, others = masks[order[row]], [masks[place] for place in order[behind]]
            # With `iscrowd` the intersection is divided by the area of the first argument's mask: the smaller one's.
            if rule == "nms":
                overlaps = coco.iou(others, [own], [False])[:, 0]
            elif rule == "drop-parts":
                overlaps = _shares_inside(others, boxes[order[behind]], own)
            else:
                overlaps = coco.iou([own], others, [True] * len(others))[0]
            for place in np.flatnonzero(overlaps >= threshold):
                gone[behind[place]] = True
                found.append(Displaced(int(order[behind[place]]), int(order[row]), rule, float(overlaps[place])))
    return found


def _shares_inside(
    masks: Sequence[dict[str, Any]], boxes: npt.NDArray[np.float64], whole: dict[str, Any]
) -> npt.NDArray[np.float64]:
    """Return which share of each mask lies inside ``whole``.

    pycocotools goes through all runs of both masks, of which a large mask has thousands. RLE goes down the columns, so
    narrow masks that are near each other are compared with a strip of it, which has the runs of their columns alone.
    """
    from pycocotools import mask as coco

    height, width = whole["size"]
    shares = np.empty(len(masks))
    narrow = boxes[:, 2] <= width * _NARROW
    if np.count_nonzero(narrow) < _IN_A_STRIP:
        narrow[:] = False
    by_column = np.flatnonzero(narrow)[np.argsort(boxes[narrow, 0], kind="stable")]
    strips = np.array_split(by_column, min(_STRIPS, len(by_column) // _IN_A_STRIP)) if len(by_column) else []
    for group in (np.flatnonzero(~narrow), *strips):
        if not len(group):
            continue
        inside = whole
        if narrow[group[0]]:
            left, right = int(boxes[group, 0].min()), int((boxes[group, 0] + boxes[group, 2]).max())
            counts = [left * height, (right - left) * height, (width - right) * height]
            columns = {"size": [height, width], "counts": counts if right < width else counts[:2]}
            inside = coco.merge([whole, *coco.frPyObjects([columns], height, width)], True)
        shares[group] = coco.iou([masks[place] for place in group], [inside], [True])[:, 0]
    return shares


class _Sieve:
    """Says which pairs of masks may overlap enough, by their areas and boxes. It errs on the side of "may"."""

    def __init__(
        self, areas: npt.NDArray[np.int64], boxes: npt.NDArray[np.float64], rule: Rule, threshold: float
    ) -> None:
        # 32 bits take half the time; what they round is less than the slack.
        self._areas = areas.astype(np.float32)
        self._left, self._top, width, height = np.ascontiguousarray(boxes.T, np.float32)
        self._right, self._bottom = self._left + width, self._top + height
        self._rule = rule
        self._least = np.float32(threshold * (1 - 1e-5))

    def allowed(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return ``(rows, columns)`` bool."""
        width = np.minimum.outer(self._right[rows], self._right[columns])
        width -= np.maximum.outer(self._left[rows], self._left[columns])
        height = np.minimum.outer(self._bottom[rows], self._bottom[columns])
        height -= np.maximum.outer(self._top[rows], self._top[columns])
        np.maximum(width, 0, out=width)
        np.maximum(height, 0, out=height)
        most = np.multiply(width, height, out=width)
        smaller = np.minimum.outer(self._areas[rows], self._areas[columns])
        if self._rule != "nms":
            smaller *= self._least
            return np.asarray(most >= smaller)
        np.minimum(most, smaller, out=most)
        # IoU = I / (A + B - I) >= t where I (1 + t) >= t (A + B).
        most *= 1 + self._least
        total = np.add.outer(self._areas[rows], self._areas[columns])
        total *= self._least
        return np.asarray(most >= total)
