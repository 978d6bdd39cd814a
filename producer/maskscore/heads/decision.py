"""Applies a head to a mask: its scores or its feature → ``p_keep``, ``keep`` and ``head_class``."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from maskscore.errors import HeadMismatch
from maskscore.schema import Component, Head, IsotonicModel, JobResult, PlattModel, ProbeModel, ThresholdModel

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Decision", "Decisions", "HeadApplication", "check_head_fits", "score_value"]


class ScoresOfMask(Protocol):
    """The scores of a mask, as a component or a worker has them."""

    @property
    def s_pos(self) -> float | None: ...
    @property
    def s_neg(self) -> float | None: ...
    @property
    def p_pos_sum(self) -> float | None: ...
    @property
    def p_neg_sum(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What a head says of a mask; the fields of :class:`~maskscore.Component`."""

    p_keep: float
    keep: bool
    head_class: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return what is set, as fields of a component."""
        decided: dict[str, Any] = {"p_keep": self.p_keep, "keep": self.keep}
        return decided if self.head_class is None else {**decided, "head_class": self.head_class}


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a head says of N masks: arrays of shape ``(N,)``, and N names where it tells classes apart."""

    p_keep: npt.NDArray[np.float64]
    keep: npt.NDArray[np.bool_]
    classes: list[str] | None = None


def check_head_fits(
    head: Head, *, weights_digest: str | None, views: str | None, method: str | None, prompts_digest: str | None
) -> None:
    """Raise :class:`~maskscore.errors.HeadMismatch` unless a head holds for masks that were scored so."""
    compared: list[tuple[str, str | None, str | None]] = [
        ("weights", head.weights_digest, weights_digest),
        ("view", head.views, views),
    ]
    if head.kind != "probe":
        compared += [("method", head.method, method), ("prompts", head.prompts_digest, prompts_digest)]
    for what, fitted, given in compared:
        if fitted != given:
            raise HeadMismatch(
                f"The head {head.name} was fitted to the {what} {_short(fitted)}, and these masks were scored with "
                f"{_short(given)}. Fit a head to masks scored so, or score them again as the head needs it."
            )


def score_value(name: str, scores: ScoresOfMask) -> float | None:
    """Return the value that a head of scores reads, ``None`` where the mask does not have it."""
    if name == "s_pos - s_neg":
        return None if scores.s_pos is None or scores.s_neg is None else scores.s_pos - scores.s_neg
    value: float | None = getattr(scores, name.removeprefix("-"))
    return -value if value is not None and name.startswith("-") else value


class HeadApplication:
    """A head, ready to be applied to many masks. A probe needs NumPy."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self._rows: npt.NDArray[np.float64] | None = None
        if isinstance(head.model, ProbeModel):
            import numpy as np

            self._rows = np.array(head.model.weights, dtype=np.float64)
            self._biases = np.array(head.model.biases, dtype=np.float64)

    def of_result(self, result: JobResult, *, views: str | None) -> JobResult:
        """Return a job's result with the head's decision beside the scores of each mask that has some.

        Decisions of another head are replaced. ``views`` is the job's view as text. Raises
        :class:`~maskscore.errors.HeadMismatch` where the head holds for other weights, views or prompts, and where it
        is a probe and the result has no embeddings.
        """
        if not any(component.skipped is None for component in result.components):
            return result
        check_head_fits(
            self.head,
            weights_digest=result.model.weights_digest if result.model else None,
            views=views,
            method=result.method,
            prompts_digest=result.prompts.digest if result.prompts else None,
        )
        components = [self._of_component(component, result.job_id) for component in result.components]
        return result.model_copy(update={"components": components, "head": self.head.identity})

    def decide(self, scores: ScoresOfMask, feature: npt.NDArray[np.floating[Any]] | None) -> Decision:
        """Return the decision on a mask.

        A probe reads ``feature``, of shape ``(D,)`` and L2-normalised; it is rounded to fp16, as embeddings of results
        are, so that a worker and an export decide alike. Raises :class:`~maskscore.errors.HeadMismatch` where the mask
        does not have what the head reads.
        """
        model = self.head.model
        if isinstance(model, ProbeModel):
            if feature is None:
                raise HeadMismatch(f"The head {self.head.name} reads embeddings, and the mask has none.")
            return self._from_feature(feature)
        value = score_value(model.score, scores)
        if value is None:
            raise HeadMismatch(f"The head {self.head.name} reads {model.score}, which the mask does not have.")
        if isinstance(model, ThresholdModel):
            keep = value >= self.head.threshold
            return Decision(model.p_above if keep else model.p_below, keep)
        if isinstance(model, PlattModel):
            p_keep = _logistic(model.slope * value + model.intercept)
        else:
            p_keep = _interpolated(model, value)
        return Decision(p_keep, p_keep >= self.head.threshold)

    def decide_many(self, values: npt.NDArray[np.floating[Any]]) -> Decisions:
        """Return the decisions on N masks as :meth:`decide` does on each, to a rounding; needs NumPy.

        ``values`` has the shape ``(N,)`` and holds the score that the head reads; for a probe, it holds features, of
        shape ``(N, D)``. Raises :class:`~maskscore.errors.HeadMismatch` for features of another size than the head's.
        """
        import numpy as np

        model, threshold = self.head.model, self.head.threshold
        if isinstance(model, ProbeModel):
            return self._from_features(values)
        if isinstance(model, ThresholdModel):
            keep = values >= threshold
            return Decisions(np.where(keep, model.p_above, model.p_below), keep)
        if isinstance(model, PlattModel):
            p_keep = _logistics(model.slope * values + model.intercept)
        else:
            p_keep = np.interp(values, model.scores, model.probabilities)
        return Decisions(p_keep, p_keep >= threshold)

    def _from_features(self, features: npt.NDArray[np.floating[Any]]) -> Decisions:
        import numpy as np

        head = self.head
        logits = self._logits(features)
        if not head.classes:
            p_keep = _logistics(logits[:, 0])
            return Decisions(p_keep, p_keep >= head.threshold)
        if logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        kept = [index for index, name in enumerate(head.classes) if name not in head.drop_classes]
        best = probabilities[:, kept].argmax(axis=1)
        p_keep = probabilities[:, kept][np.arange(len(best)), best]
        return Decisions(p_keep, p_keep >= head.threshold, [head.classes[kept[index]] for index in best])

    def _of_component(self, component: Component, job_id: str) -> Component:
        if component.skipped is not None:
            return component
        if self.head.kind == "probe" and component.embedding is None:
            raise HeadMismatch(
                f"The head {self.head.name} reads embeddings, and the result of job {job_id} has none. Use `rescore "
                "--head`, which takes features from the workers' cache, or score the masks with --embeddings."
            )
        feature = component.embedding_vector() if self.head.kind == "probe" else None
        update = {"head_class": None, **self.decide(component, feature).fields()}
        return component.model_copy(update=update)

    def _from_feature(self, feature: npt.NDArray[np.floating[Any]]) -> Decision:
        import numpy as np

        head = self.head
        logits = self._logits(feature[np.newaxis])[0]
        if not head.classes:
            p_keep = _logistic(float(logits[0]))
            return Decision(p_keep, p_keep >= head.threshold)
        if len(logits) == 1:
            logits = np.array([0.0, logits[0]])
        exponentials = np.exp(logits - logits.max())
        probabilities = exponentials / exponentials.sum()
        kept = [index for index, name in enumerate(head.classes) if name not in head.drop_classes]
        best = max(kept, key=lambda index: float(probabilities[index]))
        p_keep = float(probabilities[best])
        return Decision(p_keep, p_keep >= head.threshold, head.classes[best])

    def _logits(self, features: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """Return the probe's logits, of shape ``(N, classes)``, for features of shape ``(N, D)``."""
        import numpy as np

        rows = self._rows
        if rows is None or features.shape[1] != rows.shape[1]:
            needed = 0 if rows is None else rows.shape[1]
            raise HeadMismatch(
                f"The head {self.head.name} reads embeddings of {needed} numbers; the mask's has {features.shape[1]}."
            )
        return features.astype(np.float16).astype(np.float64) @ rows.T + self._biases


def _logistics(values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    import numpy as np

    # Of numbers that are not positive, so that nothing overflows.
    small = np.exp(-np.abs(values))
    probabilities: npt.NDArray[np.float64] = np.where(values >= 0, 1 / (1 + small), small / (1 + small))
    return probabilities


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _interpolated(model: IsotonicModel, value: float) -> float:
    right = bisect_right(model.scores, value)
    if right in (0, len(model.scores)):
        return model.probabilities[0 if right == 0 else -1]
    x_low, x_high = model.scores[right - 1], model.scores[right]
    low, high = model.probabilities[right - 1], model.probabilities[right]
    return low + (high - low) * (value - x_low) / (x_high - x_low)


def _short(text: str | None) -> str:
    return "none" if text is None else text if len(text) <= 32 else f"{text[:19]}…"
