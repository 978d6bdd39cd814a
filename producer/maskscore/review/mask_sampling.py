"""Which masks a person should judge: the most doubtful ones, and a share of all that is drawn at random."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, get_args

from maskscore.errors import InvalidDocumentError
from maskscore.export import ExportedMask
from maskscore.heads import score_value
from maskscore.schema import Head, ScoreName, ThresholdModel
from maskscore.text import did_you_mean

__all__ = [
    "MARGIN",
    "SCORES",
    "DoubtMeasure",
    "MaskSample",
    "SampledMask",
    "no_mask_has",
    "sample_masks",
    "sampling_key",
    "without_drawn",
]

MARGIN: Final = "margin"
SCORES: Final = ("s_pos", "s_neg", "p_pos_sum", "p_neg_sum", "semantic_multiplier", "p_keep")
"""Scores that doubt is measured by under their own names."""


@dataclass(frozen=True, slots=True)
class DoubtMeasure:
    """Doubt is the distance of a number of the mask from a threshold; the smaller, the more doubtful.

    ``name`` is ``margin`` (``p_pos_sum − p_neg_sum``; of cosines ``s_pos − s_neg``), another score, ``p_keep`` of the
    head that the mask was scored with, or a number among the upstream tool's fields.
    """

    name: str = MARGIN
    threshold: float = 0.0

    @classmethod
    def of_head(cls, head: Head) -> DoubtMeasure:
        """Return the measure by which a head decides: the number that it compares with its threshold."""
        return cls(head.model.score if isinstance(head.model, ThresholdModel) else "p_keep", head.threshold)

    def value_of(self, mask: ExportedMask) -> float | None:
        """Return the number; ``None`` where the mask does not have it."""
        if self.name == MARGIN:
            both = (mask.p_pos_sum, mask.p_neg_sum) if mask.p_pos_sum is not None else (mask.s_pos, mask.s_neg)
            return None if both[0] is None or both[1] is None else both[0] - both[1]
        if self.name in get_args(ScoreName):
            return score_value(self.name, mask)
        value = getattr(mask, self.name) if self.name in SCORES else mask.upstream.get(self.name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            return None
        return float(value)


@dataclass(frozen=True, slots=True)
class SampledMask:
    """One chosen mask; ``value`` is the measure's number, ``doubt`` its distance from the threshold.

    ``random`` says that it is of the random share. ``key`` is :func:`sampling_key`'s.
    """

    mask: ExportedMask
    random: bool
    value: float | None
    doubt: float | None
    key: int


@dataclass(frozen=True, slots=True)
class MaskSample:
    """The doubtful masks, the most doubtful first, the random ones in their random order, and what they are of.

    ``scored`` counts the masks with scores, ``measured`` those that have the measure's number.
    """

    doubtful: list[SampledMask]
    random: list[SampledMask]
    scored: int
    measured: int


def sampling_key(seed: int, *names: object) -> int:
    """Return 64 bits that look random, the same for the same seed and names in every process."""
    # DuckDB has this digest, too, by which masks of parts are drawn.
    text = "\0".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def sample_masks(
    masks: Iterable[ExportedMask], measure: DoubtMeasure, *, doubtful: int, random: int, seed: int
) -> MaskSample:
    """Choose ``random`` of the scored masks with equal probability, and of the others the ``doubtful`` nearest ones.

    The random share is those with the smallest :func:`sampling_key` of image, mask id and part, so that it depends on
    neither the order nor the ids of the jobs. No more masks are held than are asked for twice over.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where masks have scores, but none has the measure's number.
    """
    drawn = _Smallest(random)
    # Some of the most doubtful ones will be of the random share.
    nearest = _Smallest(doubtful + random)
    scored = measured = 0
    fields: set[str] = set()
    for mask in masks:
        if mask.skipped is not None:
            continue
        scored += 1
        key = sampling_key(seed, mask.image, mask.mask_id, mask.part)
        value = measure.value_of(mask)
        doubt = None if value is None else abs(value - measure.threshold)
        if mask.embedding is not None:
            # The largest part of a mask, and of no use here.
            mask = mask.model_copy(update={"embedding": None})
        drawn.offer((key,), SampledMask(mask, True, value, doubt, key))
        if doubt is not None:
            measured += 1
            nearest.offer((doubt, key), SampledMask(mask, False, value, doubt, key))
        elif len(fields) < 30:
            fields |= mask.upstream.keys() | {name for name in SCORES if getattr(mask, name) is not None}
            if DoubtMeasure().value_of(mask) is not None:
                fields.add(MARGIN)
    if scored and not measured:
        raise no_mask_has(measure, fields)
    return MaskSample(without_drawn(nearest.items(), drawn.items())[:doubtful], drawn.items(), scored, measured)


def no_mask_has(measure: DoubtMeasure, fields: Iterable[str]) -> InvalidDocumentError:
    """Return the error of masks that do not have the measure's number, but these ones."""
    names = sorted(fields)
    return InvalidDocumentError(
        f"No mask has a number {measure.name!r:.60}{did_you_mean(measure.name, names) or '.'} There are "
        f"{', '.join(names)}."
    )


def without_drawn(nearest: Iterable[SampledMask], drawn: Iterable[SampledMask]) -> list[SampledMask]:
    """Return the nearest masks that are not of the random share."""
    taken = {(item.key, item.mask.job_id) for item in drawn}
    return [item for item in nearest if (item.key, item.mask.job_id) not in taken]


class _Smallest:
    """Holds the ``count`` items with the smallest ranks; of equal ones the earlier."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._seen = 0
        # The largest rank stands first: what is kept are negated ranks.
        self._heap: list[tuple[tuple[float, ...], SampledMask]] = []

    def offer(self, rank: tuple[float, ...], item: SampledMask) -> None:
        self._seen += 1
        entry = (*(-number for number in rank), -self._seen), item
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry[0] > self._heap[0][0]:
            heapq.heapreplace(self._heap, entry)

    def items(self) -> list[SampledMask]:
        return [item for _, item in sorted(self._heap, key=lambda entry: entry[0], reverse=True)]
