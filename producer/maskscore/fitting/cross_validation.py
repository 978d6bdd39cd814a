"""Kinds of heads, fitted by scikit-learn and predicted out of fold; a fold never splits the masks of an image.

The choice of the score (by its AUROC) and of the probe's regularisation (by its log loss out of fold) is made once, on
all judgements; everything else is fitted within the folds.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from maskscore.errors import InvalidDocumentError
from maskscore.fitting.judged_masks import JudgedMasks
from maskscore.schema import HeadKind, IsotonicModel, PlattModel, ProbeModel, ScoreName, ThresholdModel
from maskscore.statistics import clustered_mean, t_quantile

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.float64]
    Folds = Sequence[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]

__all__ = ["KINDS", "CrossValidated", "cross_validate", "make_folds", "smallest_sufficient", "threshold_model"]

KINDS: Final[tuple[HeadKind, ...]] = ("threshold", "platt", "isotonic", "probe")
"""From the smallest to the largest."""
_FOLDS: Final = 5
_SHUFFLES: Final = 20
_INVERSE_REGULARISATIONS: Final = (0.3, 3.0, 30.0)
_BARELY: Final = 1e-6
Model = ThresholdModel | PlattModel | IsotonicModel | ProbeModel


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """A kind of head: ``model`` is fitted to all N judgements, the arrays of N are out of fold.

    ``p_keep`` are its probabilities. The AUROC is of ``ranks``: of the score where the head reads one, since a rising
    curve does not change the order of the masks, but the curves of several folds together do; else of ``p_keep``.
    ``hits`` are the masks that are rightly kept wherever they are kept: those to be kept, by class those whose class is
    named. ``errors`` are squared errors of the probabilities (Brier, 1950), by class summed over the classes.
    ``threshold`` is that of an even chance.
    """

    kind: HeadKind
    model: Model
    ranks: Numbers
    p_keep: Numbers
    hits: npt.NDArray[np.bool_]
    errors: Numbers
    threshold: float
    classes: tuple[str, ...] = ()

    @property
    def values(self) -> Numbers:
        """What the head's threshold is compared with."""
        return self.ranks if self.kind == "threshold" else self.p_keep


def make_folds(images: Sequence[str], decisions: Sequence[str]) -> Folds:
    """Return pairs of rows to fit to and rows to predict; every decision is among the rows to fit to.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where all masks of a decision are of one image.
    """
    images_of: dict[str, set[str]] = defaultdict(set)
    for image, decision in zip(images, decisions, strict=True):
        images_of[decision].add(image)
    alone = sorted(decision for decision, own in images_of.items() if len(own) < 2)
    if alone:
        raise InvalidDocumentError(
            f"All masks judged {', '.join(alone)[:300]} are of one image, so nothing tells how it is on others. Judge "
            "such masks of more images."
        )
    number = min(_FOLDS, *(len(own) for own in images_of.values()))
    _, labels = np.unique(np.array(decisions), return_inverse=True)
    _, groups = np.unique(np.array(images), return_inverse=True)
    for seed in range(_SHUFFLES):
        splitter = StratifiedGroupKFold(n_splits=number, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            # A decision with fewer masks than folds, which the check below looks at.
            warnings.simplefilter("ignore", UserWarning)
            try:
                folds = list(splitter.split(labels, labels, groups))
            except ValueError:
                break
        if all(len(rows) and len(set(labels[fitted])) == len(images_of) for fitted, rows in folds):
            return folds
    counts = ", ".join(f"{decision} {count:,}" for decision, count in sorted(Counter(decisions).items()))
    raise InvalidDocumentError(
        f"The judgements cannot be divided by image so that each part has every decision ({counts[:400]}). Judge more "
        "masks of the rare ones, on more images."
    )


def cross_validate(
    masks: JudgedMasks,
    kinds: Collection[HeadKind],
    folds: Folds,
    sample: npt.NDArray[np.bool_],
    *,
    by_class: bool,
    drop_classes: Collection[str],
) -> list[CrossValidated]:
    """Fit and predict the kinds that the masks have values for, in the order of :data:`KINDS`.

    The choice of the masks of ``sample`` did not depend on their scores. The shares on both sides of a threshold are of
    these alone: other kinds have a probability for each value, which such a choice does not change.
    """
    fitted = []
    keep = np.array(masks.decisions) == "keep"
    score = None if by_class or not masks.scores else _best_score(masks, keep)
    for kind in KINDS:
        if kind not in kinds:
            continue
        if kind == "probe":
            if masks.features is not None:
                fitted.append(_probe(masks.features, masks.decisions, folds, by_class, set(drop_classes)))
        elif score is not None and kind == "threshold":
            fitted.append(_threshold(score, masks.scores[score], keep, folds, sample))
        elif score is not None:
            fitted.append(_CURVES[kind](score, masks.scores[score], keep, folds))
    return fitted


def smallest_sufficient(
    fitted: Sequence[CrossValidated], images: Sequence[str], sample: npt.NDArray[np.bool_]
) -> CrossValidated:
    """Return the smallest kind whose errors are not significantly larger (5 %) than those of the best one.

    Only the masks of ``sample`` count. The difference is paired by mask and its variance is that of a mean of clusters,
    the images.
    """
    measured = [images[row] for row in np.flatnonzero(sample).tolist()]
    best = min(fitted, key=lambda one: float(one.errors[sample].mean()))
    for one in fitted:
        if one is best:
            break
        mean, error, degrees = clustered_mean((one.errors - best.errors)[sample].tolist(), measured)
        if mean <= t_quantile(degrees) * error:
            return one
    return best


def threshold_model(score: ScoreName, values: Numbers, keep: npt.NDArray[np.bool_], threshold: float) -> ThresholdModel:
    """Return the model of a threshold: the shares of kept judgements on both sides."""
    above = values >= threshold
    return ThresholdModel(score=score, p_below=_share(keep[~above]), p_above=_share(keep[above]))


def _share(keep: npt.NDArray[np.bool_]) -> float:
    # Of a side without judgements nothing is known.
    return float(keep.mean()) if len(keep) else 0.5


def _best_score(masks: JudgedMasks, keep: npt.NDArray[np.bool_]) -> ScoreName:
    return max(masks.scores, key=lambda name: float(roc_auc_score(keep, masks.scores[name])))


def _threshold(
    score: ScoreName, values: Numbers, keep: npt.NDArray[np.bool_], folds: Folds, sample: npt.NDArray[np.bool_]
) -> CrossValidated:
    p_keep = np.empty(len(values))
    for fitted, rows in folds:
        split = _best_split(values[fitted], keep[fitted])
        shared = fitted[sample[fitted]]
        model = threshold_model(score, values[shared], keep[shared], split)
        p_keep[rows] = np.where(values[rows] >= split, model.p_above, model.p_below)
    split = _best_split(values, keep)
    model = threshold_model(score, values[sample], keep[sample], split)
    return CrossValidated("threshold", model, values, p_keep, keep, (p_keep - keep) ** 2, split)


def _best_split(values: Numbers, keep: npt.NDArray[np.bool_]) -> float:
    """Return the threshold with the least squared error of the shares on both sides, half-way between two values."""
    order = np.argsort(values, kind="stable")
    ordered, kept = values[order], keep[order].astype(float)
    ends = np.flatnonzero(np.diff(ordered) > 0)
    if not len(ends):
        return float(ordered[0])
    below, total = np.cumsum(kept)[ends], kept.sum()
    count = ends + 1.0
    explained = below**2 / count + (total - below) ** 2 / (len(kept) - count)
    at = ends[int(explained.argmax())]
    return float((ordered[at] + ordered[at + 1]) / 2)


def _platt(score: ScoreName, values: Numbers, keep: npt.NDArray[np.bool_], folds: Folds) -> CrossValidated:
    scale = float(values.std()) or 1.0
    p_keep = np.empty(len(values))

    def model(rows: npt.NDArray[np.intp] | slice) -> tuple[float, float]:
        # With so little regularisation that it only stops a perfect separation from growing without end.
        regression = LogisticRegression(C=100.0, max_iter=1000).fit(values[rows, None] / scale, keep[rows])
        return float(regression.coef_[0, 0]) / scale, float(regression.intercept_[0])

    for fitted, rows in folds:
        slope, intercept = model(fitted)
        p_keep[rows] = _logistic(slope * values[rows] + intercept)
    slope, intercept = model(slice(None))
    return CrossValidated(
        "platt",
        PlattModel(score=score, slope=slope, intercept=intercept),
        values,
        p_keep,
        keep,
        (p_keep - keep) ** 2,
        0.5,
    )


def _isotonic(score: ScoreName, values: Numbers, keep: npt.NDArray[np.bool_], folds: Folds) -> CrossValidated:
    p_keep = np.empty(len(values))

    def regression() -> IsotonicRegression:
        return IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")

    for fitted, rows in folds:
        p_keep[rows] = regression().fit(values[fitted], keep[fitted].astype(float)).predict(values[rows])
    final = regression().fit(values, keep.astype(float))
    scores, probabilities = final.X_thresholds_, np.maximum.accumulate(np.clip(final.y_thresholds_, 0, 1))
    model = IsotonicModel(score=score, scores=tuple(scores.tolist()), probabilities=tuple(probabilities.tolist()))
    return CrossValidated("isotonic", model, values, p_keep, keep, (p_keep - keep) ** 2, 0.5)


_CURVES: Final[dict[str, Callable[[ScoreName, Numbers, npt.NDArray[np.bool_], Folds], CrossValidated]]] = {
    "platt": _platt,
    "isotonic": _isotonic,
}


def _probe(
    features: Numbers, decisions: Sequence[str], folds: Folds, by_class: bool, drop_classes: Collection[str]
) -> CrossValidated:
    labels = np.array(decisions) if by_class else np.array([int(one == "keep") for one in decisions])
    names, codes = np.unique(labels, return_inverse=True)
    truth = codes[:, None] == np.arange(len(names))

    def predicted(strength: float) -> Numbers:
        probabilities = np.empty(truth.shape)
        for fitted, rows in folds:
            regression = LogisticRegression(C=strength, max_iter=2000).fit(features[fitted], codes[fitted])
            probabilities[rows] = regression.predict_proba(features[rows])
        return probabilities

    tried = [(strength, predicted(strength)) for strength in _INVERSE_REGULARISATIONS]
    # log loss
    strength, probabilities = min(tried, key=lambda one: -float(np.log(np.maximum(one[1][truth], _BARELY)).sum()))
    final = LogisticRegression(C=strength, max_iter=2000).fit(features, codes)
    model = ProbeModel(
        weights=tuple(tuple(row) for row in final.coef_.tolist()), biases=tuple(final.intercept_.tolist())
    )
    if not by_class:
        p_keep = probabilities[:, 1]
        keep = truth[:, 1]
        return CrossValidated("probe", model, p_keep, p_keep, keep, (p_keep - keep) ** 2, 0.5)
    kept = np.flatnonzero([name not in drop_classes for name in names])
    best = kept[probabilities[:, kept].argmax(axis=1)]
    p_keep = probabilities[np.arange(len(best)), best]
    errors = ((probabilities - truth) ** 2).sum(axis=1)
    return CrossValidated("probe", model, p_keep, p_keep, best == codes, errors, 0.5, tuple(map(str, names)))


def _logistic(values: Numbers) -> Numbers:
    result: Numbers = 0.5 * (1 + np.tanh(values / 2))
    return result
