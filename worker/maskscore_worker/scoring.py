"""Features → scores: pure arithmetic, no I/O, no model."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from maskscore.errors import FailureCode, JobError
from maskscore.schema import PromptScore, PromptSet, ScoringOptions

__all__ = ["Scores", "check_method", "score"]

# Numbers of 64 bits in what processors read at once, at most.
_ALIGNED: Final = 8


class Scores(NamedTuple):
    """The scores of one mask; see :class:`maskscore.schema.result.Component`."""

    s_pos: float
    s_neg: float
    s_pos_text: str
    s_neg_text: str
    p_pos_sum: float | None
    p_neg_sum: float | None
    semantic_multiplier: float | None
    top_k: list[PromptScore] | None


def check_method(options: ScoringOptions, logit_bias: float | None, architecture: str) -> None:
    """Raise :class:`~maskscore.errors.JobError` with ``no_logit_bias`` where a model cannot score by the method."""
    if options.method == "sigmoid" and logit_bias is None:
        raise JobError(
            FailureCode.NO_LOGIT_BIAS,
            f"{architecture} has no logit_bias: it was not trained with a sigmoid loss, so its cosines are no "
            'probabilities of single prompts. Use method="softmax", or a worker with a SigLIP model.',
        )


def score(
    features: npt.NDArray[np.float32],
    prompt_features: npt.NDArray[np.float32],
    prompt_set: PromptSet,
    logit_scale: float,
    options: ScoringOptions,
    logit_bias: float | None = None,
) -> list[Scores]:
    """Score image features against prompt features.

    ``features`` is ``(N, D)``, ``prompt_features`` ``(P, D)`` in the order of ``prompt_set.texts``, both float32 and
    L2-normalised; ``logit_scale`` is the factor itself (``exp`` already taken). ``softmax``:
    ``p = softmax(logit_scale · f @ T.T)`` over all prompts, then the groups' maxima and sums and the multiplier;
    ``sigmoid``: ``p = sigmoid(logit_scale · f @ T.T + logit_bias)`` of each prompt by itself (the SigLIP paper's
    pairwise probability, arXiv 2303.15343, as open_clip's models with a ``logit_bias`` are used), then the groups'
    maxima and the multiplier; ``cosine``: the groups' largest ``f @ T.T``. The first of equal prompts wins.

    Raises :class:`ValueError` for ``sigmoid`` without a bias (see :func:`check_method`).

    Each row is computed by itself, so equal features have equal scores to the last bit, whatever is scored with them.
    """
    texts = prompt_features.astype(np.float64)
    # A product of matrices would add up a row's terms in an order that depends on how many rows there are and on the
    # processor. These are products of a matrix and a vector, each of the same shape, and all vectors are aligned alike.
    # What follows is done for all rows at once: it takes each number, or each row, by itself.
    dimensions = features.shape[1]
    rows = np.empty((len(features), dimensions + -dimensions % _ALIGNED), np.float64)
    rows[:, :dimensions] = features
    cosines = np.matmul(texts, rows[:, :dimensions, np.newaxis])[..., 0]
    return _scores(_values(cosines, logit_scale, logit_bias, options), prompt_set, options)


def _values(
    cosines: npt.NDArray[np.float64], logit_scale: float, logit_bias: float | None, options: ScoringOptions
) -> npt.NDArray[np.float64]:
    if options.method == "cosine":
        return cosines
    logits = cosines * logit_scale
    if options.method == "sigmoid":
        if logit_bias is None:
            raise ValueError("the method sigmoid needs a logit_bias")
        return np.asarray(expit(logits + logit_bias))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def _scores(values: npt.NDArray[np.float64], prompt_set: PromptSet, options: ScoringOptions) -> list[Scores]:
    """Return the scores of ``(N, P)`` values."""
    positives, negatives = len(prompt_set.positive), len(prompt_set.negative)
    groups = values[:, :positives], values[:, positives : positives + negatives]
    best = [group.argmax(axis=1) for group in groups]
    most = [group[np.arange(len(group)), place].tolist() for group, place in zip(groups, best, strict=True)]
    texts = [
        [names[place] for place in places.tolist()]
        for names, places in zip((prompt_set.positive, prompt_set.negative), best, strict=True)
    ]
    none: list[float | None] = [None] * len(values)
    sums, multipliers = [none, none], none
    if options.method == "softmax":
        sums = [group.sum(axis=1).tolist() for group in groups]
        multipliers = list(map(options.thresholds.multiplier, *sums))
    elif options.method == "sigmoid":
        multipliers = list(map(options.sigmoid_thresholds.multiplier, *most))
    top_k = [_top(own, prompt_set, options.top_k) for own in values] if options.top_k else [None] * len(values)
    return list(map(Scores, *most, *texts, *sums, multipliers, top_k))


def _top(values: npt.NDArray[np.float64], prompt_set: PromptSet, count: int) -> list[PromptScore]:
    groups = (
        ["positive"] * len(prompt_set.positive)
        + ["negative"] * len(prompt_set.negative)
        + ["neutral"] * len(prompt_set.neutral)
    )
    best = np.argsort(-values, kind="stable")[:count]
    return [
        PromptScore.model_validate(
            {"text": prompt_set.texts[index], "group": groups[index], "score": float(values[index])}
        )
        for index in best
    ]
