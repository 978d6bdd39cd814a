"""Precision and recall by threshold, with 95 % intervals by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from maskscore.statistics.intervals import Estimate

__all__ = ["OperatingPoint", "operating_curve", "operating_point", "point_at_recall"]

_POINTS: Final = 30


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Precision and recall, with 95 % intervals by image, where masks from a threshold on are kept."""

    threshold: float
    kept: int
    precision: Estimate
    recall: Estimate


def operating_point(
    threshold: float,
    images: Sequence[Hashable],
    values: Sequence[float],
    hits: Sequence[bool],
    wanted: Sequence[bool],
) -> OperatingPoint | None:
    """Return the point at a threshold; ``None`` where it keeps no mask, or none is ``wanted`` (to be kept).

    ``hits`` are the masks that are rightly kept wherever they are kept.
    """
    rows = list(zip(images, values, hits, wanted, strict=True))
    kept = [(image, hit) for image, value, hit, _ in rows if value >= threshold]
    needed = [(image, hit and value >= threshold) for image, value, hit, want in rows if want]
    if not kept or not needed:
        return None
    precision = Estimate.of_hits(*zip(*kept, strict=True))
    return OperatingPoint(threshold, len(kept), precision, Estimate.of_hits(*zip(*needed, strict=True)))


def operating_curve(
    images: Sequence[Hashable], values: Sequence[float], hits: Sequence[bool], wanted: Sequence[bool]
) -> list[OperatingPoint]:
    """Return points from the highest threshold to the lowest, 30 at most, that keep about as many masks more each."""
    ordered = sorted(values, reverse=True)
    last = len(ordered) - 1
    thresholds = {ordered[round(last * step / _POINTS)] for step in range(1, _POINTS + 1)} if ordered else ()
    # Masks are added from the highest value on, so that a point costs a pass over the images, and not over the masks.
    rows = sorted(zip(values, images, hits, wanted, strict=True), key=itemgetter(0), reverse=True)
    kept: dict[Hashable, tuple[int, int]] = {}
    found: dict[Hashable, int] = {}
    needed = Counter(image for _, image, _, want in rows if want)
    points = []
    number = 0
    for threshold in sorted(thresholds, reverse=True):
        while number < len(rows) and rows[number][0] >= threshold:
            _, image, hit, want = rows[number]
            right, count = kept.get(image, (0, 0))
            kept[image] = right + hit, count + 1
            found[image] = found.get(image, 0) + (hit and want)
            number += 1
        if needed:
            recall = Estimate.of_share([(found.get(image, 0), count) for image, count in needed.items()])
            points.append(OperatingPoint(threshold, number, Estimate.of_share(list(kept.values())), recall))
    return points


def point_at_recall(
    recall: float,
    images: Sequence[Hashable],
    values: Sequence[float],
    hits: Sequence[bool],
    wanted: Sequence[bool],
) -> OperatingPoint | None:
    """Return the point with the highest threshold whose recall is ``recall`` at least; ``None`` where none is."""
    found = sorted((value for value, hit, want in zip(values, hits, wanted, strict=True) if hit and want), reverse=True)
    number = sum(wanted)
    threshold = next((value for rank, value in enumerate(found, 1) if rank >= recall * number), None)
    return None if threshold is None else operating_point(threshold, images, values, hits, wanted)
