"""Figures of heads out of fold, with 95 % intervals by image: AUROC, precision and recall by threshold, reliability."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from maskscore.evaluation import Estimate
from maskscore.fitting.cross_validation import CrossValidated
from maskscore.schema import HeadKind

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "KindFigures",
    "OperatingPoint",
    "ReliabilityBin",
    "area_under_roc",
    "operating_curve",
    "operating_point",
    "reliability_bins",
    "share_of_hits",
]

_POINTS: Final = 30
_BINS: Final = 10
_IN_A_BIN: Final = 20


@dataclass(frozen=True, slots=True)
class KindFigures:
    """A kind of head out of fold."""

    kind: HeadKind
    brier: float
    auroc: Estimate | None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Precision and recall out of fold, with 95 % intervals by image, where masks from a threshold on are kept."""

    threshold: float
    kept: int
    precision: Estimate
    recall: Estimate


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Masks of like ``p_keep``: the mean of it, and how many of them really are to be kept."""

    masks: int
    p_keep: float
    share: Estimate


def area_under_roc(one: CrossValidated, images: Sequence[str], sample: npt.NDArray[np.bool_]) -> Estimate | None:
    """Return the AUROC of the hits among the masks of ``sample``; ``None`` where all are hits or none is."""
    rows = np.flatnonzero(sample).tolist()
    positives = [(float(one.ranks[row]), images[row]) for row in rows if one.hits[row]]
    negatives = [(float(one.ranks[row]), images[row]) for row in rows if not one.hits[row]]
    return Estimate.of_auroc(positives, negatives)


def share_of_hits(images: npt.NDArray[np.str_], hits: npt.NDArray[np.bool_]) -> Estimate:
    """Return the share of hits; ``images`` are those of the masks, of which there is one at least."""
    by_image: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for image, hit in zip(images.tolist(), hits.tolist(), strict=True):
        by_image[image][0] += hit
        by_image[image][1] += 1
    return Estimate.of_share([(own[0], own[1]) for own in by_image.values()])


def operating_point(
    threshold: float,
    images: npt.NDArray[np.str_],
    values: npt.NDArray[np.float64],
    hits: npt.NDArray[np.bool_],
    wanted: npt.NDArray[np.bool_],
) -> OperatingPoint | None:
    """Return the point at a threshold; ``None`` where it keeps no mask, or none is ``wanted`` (to be kept)."""
    kept = values >= threshold
    if not kept.any() or not wanted.any():
        return None
    precision = share_of_hits(images[kept], hits[kept])
    return OperatingPoint(threshold, int(kept.sum()), precision, share_of_hits(images[wanted], (hits & kept)[wanted]))


def operating_curve(
    images: npt.NDArray[np.str_],
    values: npt.NDArray[np.float64],
    hits: npt.NDArray[np.bool_],
    wanted: npt.NDArray[np.bool_],
) -> list[OperatingPoint]:
    """Return points from the highest threshold to the lowest, at most :data:`_POINTS`."""
    ordered = np.sort(values)[::-1]
    ranks = np.unique(np.linspace(0, len(ordered) - 1, _POINTS + 1).round().astype(int)[1:])
    thresholds = sorted({float(ordered[rank]) for rank in ranks}, reverse=True)
    points = (operating_point(threshold, images, values, hits, wanted) for threshold in thresholds)
    return [point for point in points if point is not None]


def reliability_bins(
    images: npt.NDArray[np.str_], p_keep: npt.NDArray[np.float64], hits: npt.NDArray[np.bool_]
) -> list[ReliabilityBin]:
    """Return bins of about as many masks each, in the order of ``p_keep``; equal ones are in one bin."""
    number = max(1, min(_BINS, len(p_keep) // _IN_A_BIN))
    edges = np.unique(np.quantile(p_keep, np.linspace(0, 1, number + 1)[1:-1]))
    bins = np.searchsorted(edges, p_keep, side="right")
    found = []
    for one in np.unique(bins):
        rows = bins == one
        share = share_of_hits(images[rows], hits[rows])
        found.append(ReliabilityBin(int(rows.sum()), float(p_keep[rows].mean()), share))
    return found
