"""The fit of a head: kinds cross-validated and compared, the threshold chosen, and what is known of the result."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Final

import numpy as np
from threadpoolctl import threadpool_limits

from maskscore.errors import InvalidDocumentError
from maskscore.fitting.cross_validation import (
    KINDS,
    CrossValidated,
    cross_validate,
    make_folds,
    smallest_sufficient,
    threshold_model,
)
from maskscore.fitting.judged_masks import JudgedMasks
from maskscore.schema import Head, HeadEstimate, HeadKind, ThresholdModel
from maskscore.statistics import (
    Estimate,
    OperatingPoint,
    Ranked,
    ReliabilityBin,
    operating_curve,
    operating_point,
    reliability_bins,
    t_quantile,
)
from maskscore.text import counted

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FEWEST", "Fit", "FitOptions", "fit_head"]

FEWEST: Final = 20
"""Judgements below which nothing is fitted."""
_ENOUGH_RANDOM: Final = 50
_FEW_NEGATIVES: Final = 20


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What is asked for; ``kind`` is ``None`` for the smallest kind that is sufficient."""

    name: str
    kind: HeadKind | None = None
    by_class: bool = False
    drop_classes: Sequence[str] = ()
    precision: float | None = None


@dataclass(frozen=True, slots=True)
class KindFigures:
    """A kind of head out of fold."""

    kind: HeadKind
    brier: float
    auroc: Estimate | None


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted head and what is known of it.

    ``measured`` counts the judgements that the figures are of: the random share where it is large enough, else all.
    ``refusal`` says why the head should not be used.
    """

    head: Head
    kinds: list[KindFigures]
    curve: list[OperatingPoint]
    point: OperatingPoint | None
    reliability: list[ReliabilityBin]
    measured: int
    warnings: list[str] = field(default_factory=list)
    refusal: str | None = None

    @property
    def to_halve(self) -> int:
        """How many more judgements would halve the intervals, whose width falls with the root of their number."""
        return 3 * self.measured


def fit_head(masks: JudgedMasks, options: FitOptions) -> Fit:
    """Fit a head to judged masks.

    Raises :class:`~maskscore.errors.InvalidDocumentError` for too few judgements, judgements of one kind alone, and
    a kind that reads what the masks do not have.
    """
    _check(masks, options)
    folds = make_folds(masks.images, masks.decisions)
    kinds: tuple[HeadKind, ...] = ("probe",) if options.by_class else (options.kind,) if options.kind else KINDS
    sample, warnings = _sample(masks)
    # The matrices are small: several threads cost more than they save, on a busy machine many times as much.
    with threadpool_limits(limits=1, user_api="blas"):
        fitted = cross_validate(
            masks, kinds, folds, sample, by_class=options.by_class, drop_classes=options.drop_classes
        )
    if not fitted:
        if kinds == ("probe",):
            raise InvalidDocumentError(
                "A probe reads embeddings, and not every judged mask has one of the same size: `fit --embed` has "
                "workers give them."
            )
        raise InvalidDocumentError("The judged masks have no score that a head can read.")
    areas = {one.kind: _area_under_roc(one, masks.images, sample) for one in fitted}
    refusals = {one.kind: _no_better_than_chance(one, masks, areas[one.kind], sample) for one in fitted}
    better = [one for one in fitted if refusals[one.kind] is None]
    chosen = smallest_sufficient(better or fitted, masks.images, sample)
    refusal = refusals[chosen.kind]
    warnings += _few_negatives(chosen.hits[sample])
    missing = masks.jobs_without_features.total()
    if options.kind is None and 0 < missing < len(masks.decisions):
        warnings.append(
            f"{counted(missing, 'judged mask')} {'have' if missing != 1 else 'has'} no embedding, so no probe was "
            "fitted; --embed has workers give them."
        )
    positives = np.array(
        [one not in (options.drop_classes if options.by_class else ("drop",)) for one in masks.decisions]
    )
    images = [masks.images[row] for row in np.flatnonzero(sample)]
    values, hits, wanted = (of_all[sample].tolist() for of_all in (chosen.values, chosen.hits, positives))
    curve = operating_curve(images, values, hits, wanted)
    threshold = chosen.threshold
    reached = options.precision is None
    if options.precision is not None:
        reaching = [point for point in curve if point.precision.low >= options.precision]
        if reaching:
            threshold, reached = min(point.threshold for point in reaching), True
        elif refusal is None:
            refusal = _out_of_reach(options.precision, curve)
    point = operating_point(threshold, images, values, hits, wanted)
    if point is None:
        warnings.append(
            f"No measured mask reaches the threshold {threshold:g}, so the head keeps hardly any; --precision "
            "chooses another."
        )
    model = chosen.model
    if isinstance(model, ThresholdModel):
        model = threshold_model(model.score, chosen.values[sample], chosen.hits[sample], threshold)
    probe = chosen.kind == "probe"
    figures = {"precision": point.precision, "recall": point.recall} if point else {}
    if (area := areas[chosen.kind]) is not None:
        figures["auroc"] = area
    head = Head(
        name=options.name,
        model=model,
        classes=chosen.classes,
        # Without those whose masks are all left out.
        drop_classes=tuple(name for name in options.drop_classes if name in chosen.classes),
        threshold=threshold,
        weights_digest=masks.origin.weights_digest,
        views=masks.origin.views,
        method=None if probe else masks.origin.method,
        prompts_digest=None if probe else masks.origin.prompts_digest,
        precision=options.precision if reached else None,
        metrics={name: HeadEstimate(value=one.value, low=one.low, high=one.high) for name, one in figures.items()},
        counts={
            "judgements": len(masks.decisions),
            "images": len(set(masks.images)),
            "keep": int(positives.sum()),
            "drop": int((~positives).sum()),
        },
        created_at=datetime.now(UTC),
        maskscore=metadata.version("maskscore"),
    )
    return Fit(
        head=head,
        kinds=[KindFigures(one.kind, float(one.errors[sample].mean()), areas[one.kind]) for one in fitted],
        curve=curve,
        point=point,
        reliability=reliability_bins(images, chosen.p_keep[sample].tolist(), hits),
        measured=len(values),
        warnings=warnings,
        refusal=refusal,
    )


def _area_under_roc(one: CrossValidated, images: Sequence[str], sample: npt.NDArray[np.bool_]) -> Estimate | None:
    """Return the AUROC of the hits among the masks of ``sample``; ``None`` where all are hits or none is."""
    rows = np.flatnonzero(sample).tolist()
    positives = [(float(one.ranks[row]), images[row]) for row in rows if one.hits[row]]
    negatives = [(float(one.ranks[row]), images[row]) for row in rows if not one.hits[row]]
    return Estimate.of_auroc(Ranked(positives), Ranked(negatives))


def _check(masks: JudgedMasks, options: FitOptions) -> None:
    counts = Counter(masks.decisions)
    if len(masks.decisions) < FEWEST:
        raise InvalidDocumentError(
            f"There are {counted(len(masks.decisions), 'judged mask')} with scores; a fit needs {FEWEST} at least, and "
            "some hundred are better."
        )
    if len(counts) < 2:
        raise InvalidDocumentError(
            f"All {len(masks.decisions):,} judged masks are judged {next(iter(counts))}; a head needs others, too."
        )
    if options.by_class and set(options.drop_classes) >= set(counts):
        raise InvalidDocumentError("--drop-class names every class, so no mask would be kept.")


def _sample(masks: JudgedMasks) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Return which judgements the figures are of, and the warnings."""
    warnings = []
    everything = np.ones(len(masks.decisions), dtype=bool)
    drawn = int(masks.random.sum())
    several = len({masks.decisions[row] for row in np.flatnonzero(masks.random)}) > 1
    if drawn >= _ENOUGH_RANDOM and several:
        sample = masks.random
    else:
        sample = everything
        if not drawn:
            warnings.append(
                "No judgement says that its mask was drawn at random: the figures hold for masks that are chosen as "
                "these were."
            )
        elif drawn < len(everything):
            warnings.append(
                f"Only {drawn:,} of the masks were drawn at random ({_ENOUGH_RANDOM} are needed, not all judged "
                "alike), so the figures are of all judgements: they hold for masks that are chosen as these were."
            )
    image, most = Counter(masks.images).most_common(1)[0]
    if most * 2 > len(masks.images):
        warnings.append(f"One image holds {most / len(masks.images):.0%} of the judged masks: {image}.")
    return sample, warnings


def _few_negatives(hits: npt.NDArray[np.bool_]) -> list[str]:
    wrong = int((~hits).sum())
    if wrong >= _FEW_NEGATIVES:
        return []
    return [
        f"Too few negatives: only {wrong:,} of {counted(len(hits), 'measured mask')} "
        f"{'are' if wrong != 1 else 'is'} not to be kept, so little is known of what the head lets pass."
    ]


def _no_better_than_chance(
    one: CrossValidated, masks: JudgedMasks, area: Estimate | None, sample: npt.NDArray[np.bool_]
) -> str | None:
    if one.classes:
        rows = np.flatnonzero(sample).tolist()
        name, most = Counter(masks.decisions[row] for row in rows).most_common(1)[0]
        common = most / len(rows)
        right = Estimate.of_hits([masks.images[row] for row in rows], one.hits[sample].tolist())
        if right.low > common or (right.value == 1 and common < 1):
            return None
        return (
            f"The head is not better than chance: it names the class of {right.value:.1%} of the masks (95 % interval "
            f"{right.low:.1%} to {right.high:.1%}), and {common:.1%} are {name}."
        )
    if area is not None and area.low > 0.5:
        return None
    shown = (
        "no AUROC"
        if area is None
        else f"an AUROC of {area.value:.3f} (95 % interval {area.low:.3f} to {area.high:.3f})"
    )
    return f"The head is not better than chance: it has {shown} on images that it was not fitted to."


def _out_of_reach(precision: float, curve: Sequence[OperatingPoint]) -> str:
    best = max(curve, key=lambda point: point.precision.low)
    images = math.ceil(t_quantile(1000) ** 2 * precision / (1 - precision)) if precision < 1 else 0
    least = f" Even without an error this takes kept masks of some {images:,} images." if images else ""
    return (
        f"No threshold has a precision of {precision:g} for certain: the lower bound of the 95 % interval is "
        f"{best.precision.low:.3f} at most, where {counted(best.kept, 'judged mask')} would be kept.{least} Judge "
        "more, or ask for less."
    )
