"""A head: a small fitted model that turns a mask's scores or its feature into the probability that it is to be kept."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field, FiniteFloat, model_validator

from maskscore.schema.document import Document

__all__ = [
    "HEAD_NAME_PATTERN",
    "Head",
    "HeadEstimate",
    "HeadIdentity",
    "HeadKind",
    "IsotonicModel",
    "PlattModel",
    "ProbeModel",
    "ScoreName",
    "ThresholdModel",
]

HEAD_NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
HeadKind = Literal["threshold", "platt", "isotonic", "probe"]
ScoreName = Literal["p_pos_sum", "-p_neg_sum", "s_pos", "s_pos - s_neg"]
"""Values that a head of scores may read; each is the larger, the more a mask is an object."""

_Probability = Annotated[float, Field(ge=0, le=1)]


class ThresholdModel(Document):
    """One score is compared with the head's ``threshold``; ``p_keep`` is the share of kept judgements on that side."""

    kind: Literal["threshold"] = "threshold"
    score: ScoreName
    p_below: _Probability
    p_above: _Probability


class PlattModel(Document):
    """``p_keep = 1 / (1 + exp(-(slope · score + intercept)))`` (Platt, 1999)."""

    kind: Literal["platt"] = "platt"
    score: ScoreName
    slope: FiniteFloat
    intercept: FiniteFloat


class IsotonicModel(Document):
    """``p_keep`` is interpolated between points ``(scores[i], probabilities[i])``, both ascending; constant outside."""

    kind: Literal["isotonic"] = "isotonic"
    score: ScoreName
    scores: tuple[FiniteFloat, ...] = Field(min_length=1, max_length=10_000)
    probabilities: tuple[_Probability, ...]

    @model_validator(mode="after")
    def _ascending(self) -> IsotonicModel:
        if len(self.scores) != len(self.probabilities):
            raise ValueError("it has not as many probabilities as scores")
        if any(list(values) != sorted(values) for values in (self.scores, self.probabilities)):
            raise ValueError("its scores and probabilities must ascend")
        return self


class ProbeModel(Document):
    """Logistic regression on the L2-normalised feature: ``softmax(weights @ feature + biases)`` over the classes.

    ``weights`` is a row of D numbers per class, ``biases`` a number per class. Two classes may have one row: the second
    class against the first.
    """

    kind: Literal["probe"] = "probe"
    weights: tuple[tuple[FiniteFloat, ...], ...] = Field(min_length=1, max_length=10_000)
    biases: tuple[FiniteFloat, ...]

    @model_validator(mode="after")
    def _matrix(self) -> ProbeModel:
        if len(self.biases) != len(self.weights) or len({len(row) for row in self.weights}) != 1:
            raise ValueError("its weights must be rows of one length, with a bias each")
        return self


class HeadEstimate(Document):
    """A measured value with its 95 % interval by image."""

    value: float
    low: float
    high: float


class HeadIdentity(Document):
    """Which head made ``p_keep`` and ``keep``."""

    name: str
    digest: str
    kind: HeadKind
    threshold: float


class Head(Document):
    """A fitted head as a JSON document, with what it holds for.

    ``keep`` is ``value >= threshold``; the value is ``p_keep``, or the score itself for the kind ``threshold``. A head
    by class has ``classes``; a mask's ``head_class`` is the most probable class that is not one of
    ``drop_classes``, and ``p_keep`` is that class's probability. Features do not depend on prompts, so the head of a
    probe has no ``prompts_digest``.
    """

    version: Literal[1] = 1
    name: str = Field(pattern=HEAD_NAME_PATTERN)
    model: ThresholdModel | PlattModel | IsotonicModel | ProbeModel = Field(discriminator="kind")
    classes: tuple[str, ...] = Field((), max_length=10_000, description="Of a head by class, in the weights' order.")
    drop_classes: tuple[str, ...] = Field((), description="Those that are not to be kept.")
    threshold: FiniteFloat
    weights_digest: str = Field(description="Weights that the scores or features must come from.")
    views: str = Field(description="View that was scored, as `JobResult.views_text` says it.")
    method: str | None = Field(None, description="Method of the scores; a probe has none.")
    prompts_digest: str | None = Field(None, description="Prompts that were asked; a probe has none.")
    precision: float | None = Field(None, description="Precision that the threshold was chosen for.")
    metrics: dict[str, HeadEstimate] = Field(default_factory=dict, description="Cross-validated, grouped by image.")
    counts: dict[str, int] = Field(default_factory=dict, description="Judgements, images, kept and dropped.")
    created_at: datetime | None = None
    maskscore: str | None = Field(None, description="Release that fitted it.")

    @model_validator(mode="after")
    def _fitting_classes(self) -> Head:
        if isinstance(self.model, ProbeModel):
            rows = len(self.model.weights)
            expected = 1 if not self.classes else len(self.classes)
            if rows != expected and not (len(self.classes) == 2 and rows == 1):
                raise ValueError(f"it has {rows} rows of weights for {expected} classes")
        else:
            if self.classes:
                raise ValueError("only a probe tells classes apart")
            if self.method is None or self.prompts_digest is None:
                raise ValueError("a head of scores needs `method` and `prompts_digest`")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice")
        unknown = set(self.drop_classes) - set(self.classes)
        if unknown or (self.classes and len(set(self.drop_classes)) == len(self.classes)):
            raise ValueError("`drop_classes` must be some of `classes`, not all")
        return self

    @property
    def kind(self) -> HeadKind:
        """The model's kind."""
        return self.model.kind

    @property
    def digest(self) -> str:
        """``sha256:…`` of what decides: the model, the classes, the threshold, and what it holds for."""
        decides = self.model_dump_json(
            include={
                "model", "classes", "drop_classes", "threshold", "weights_digest", "views", "method", "prompts_digest"
            }
        )  # fmt: skip
        return f"sha256:{hashlib.sha256(decides.encode()).hexdigest()}"

    @property
    def identity(self) -> HeadIdentity:
        """What a result says of it."""
        return HeadIdentity(name=self.name, digest=self.digest, kind=self.kind, threshold=self.threshold)
