"""How the masks of a job are scored: a part of the job document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from maskscore.schema.document import Document
from maskscore.schema.head import HEAD_NAME_PATTERN, Head
from maskscore.schema.prompt_set import PromptSet
from maskscore.schema.views import ALPHA, BLUR, CONTEXT, Frame, Treatment, View

__all__ = [
    "DEFAULT_MODEL_NAME",
    "Method",
    "ModelName",
    "ScoringOptions",
    "ShortText",
    "SigmoidThresholds",
    "Thresholds",
    "thresholds_by_method",
]

Method = Literal["softmax", "sigmoid", "cosine"]
ShortText = Annotated[str, Field(max_length=1024)]
DEFAULT_MODEL_NAME: Final = "default"
"""What people call the model of workers that have no name, and of jobs that ask for none."""


def _no_default(name: str) -> str | None:
    return None if name == DEFAULT_MODEL_NAME else name


# No colon: the name is a part of the ledger's keys. `default` is read as no name, so that both are the same job.
ModelName = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"), AfterValidator(_no_default)]
"""The name under which workers serve a model; ``default`` becomes ``None``."""


class Thresholds(Document):
    """The four numbers of the semantic multiplier, compared strictly, in this order (see ``multiplier``)."""

    reject_neg_sum: float = Field(0.5, ge=0, le=1)
    strong_pos_sum: float = Field(0.7, ge=0, le=1)
    strong_neg_sum: float = Field(0.2, ge=0, le=1)
    accept_pos_sum: float = Field(0.4, ge=0, le=1)

    def multiplier(self, pos_sum: float, neg_sum: float) -> float:
        """Return the semantic multiplier for the two group sums (probabilities, 0 to 1)."""
        if neg_sum > self.reject_neg_sum:
            return 0.1
        if pos_sum > self.strong_pos_sum and neg_sum < self.strong_neg_sum:
            return 2.0
        if pos_sum > self.accept_pos_sum:
            return 1.0
        return 0.5


class SigmoidThresholds(Document):
    """The three numbers of the semantic multiplier of ``method="sigmoid"``, compared strictly (see ``multiplier``).

    They are small because such a model is trained on one match among the tens of thousands of texts of a batch: it
    gives an unrelated text 1e-6 to 1e-4, a good one often 0.1 to 0.5. ``docs/explanation/scoring.md`` has the sources.
    """

    fit: float = Field(0.01, ge=0, le=1, description="A prompt fits above this.")
    strong_pos: float = Field(0.1, ge=0, le=1)
    strong_neg: float = Field(0.01, ge=0, le=1)

    def multiplier(self, s_pos: float, s_neg: float) -> float:
        """Return the semantic multiplier for the best prompt of each group (independent probabilities, 0 to 1).

        0.5 is "no prompt fits", and nothing else.
        """
        if max(s_pos, s_neg) <= self.fit:
            return 0.5
        if s_neg > s_pos:
            return 0.1
        if s_pos > self.strong_pos and s_neg < self.strong_neg:
            return 2.0
        return 1.0


def thresholds_by_method(named: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return thresholds as the fields of :class:`ScoringOptions` that they belong to; no name is of both methods."""
    parts: dict[str, dict[str, float]] = {}
    for name, value in named.items():
        field = "sigmoid_thresholds" if name in SigmoidThresholds.model_fields else "thresholds"
        parts.setdefault(field, {})[name] = value
    return parts


class ScoringOptions(Document):
    """How the masks of a job are scored.

    ``treatment``, ``frame``, ``alpha``, ``blur`` and ``context`` are the job's view. With ``average_with``, features
    are made under that view and under each of these, and a mask's feature is the L2-normalised mean of its
    L2-normalised features; a view given twice would count twice, so that is refused.
    """

    # What has come to the contract later is written only where it is asked for: documents, and the ids and digests that
    # are made of them, stay what they were.
    prompts: ShortText | PromptSet = Field("default", description="A prompt set's name, or a set of the job's own.")
    treatment: Treatment = "original"
    frame: Frame = Field("cut", exclude_if=lambda frame: frame == "cut")
    alpha: float = Field(ALPHA, ge=0, le=1, description="Strength of `soft_mask`'s fill outside the mask.")
    blur: float = Field(
        BLUR,
        gt=0,
        le=1,
        exclude_if=lambda blur: blur == BLUR,
        description="Standard deviation of `blur`, in longer sides of the mask's box.",
    )
    context: float = Field(
        CONTEXT,
        ge=0,
        le=4,
        exclude_if=lambda context: context == CONTEXT,
        description="Margin of `context` on each side, in longer sides of the mask's box.",
    )
    average_with: tuple[View, ...] = Field(
        (),
        max_length=7,
        fail_fast=True,
        exclude_if=lambda views: not views,
        description="Further views whose features are averaged.",
    )
    method: Method = "softmax"
    thresholds: Thresholds = Thresholds()
    sigmoid_thresholds: SigmoidThresholds = Field(
        SigmoidThresholds(),
        exclude_if=lambda thresholds: thresholds == SigmoidThresholds(),
        description="Thresholds of the multiplier of the method `sigmoid`.",
    )
    min_area: int = Field(1, ge=1, description="Masks (or components) of fewer pixels are skipped.")
    nms: float | None = Field(
        None,
        gt=0,
        le=1,
        exclude_if=lambda nms: nms is None,
        description="Masks whose IoU with one of a better upstream score is at least this are skipped as copies.",
    )
    drop_parts: float | None = Field(
        None,
        gt=0,
        le=1,
        exclude_if=lambda drop_parts: drop_parts is None,
        description="Masks of which at least this share lies inside a larger one are skipped as its parts.",
    )
    split_components: bool = Field(False, description="Score each 8-connected component of a mask by itself.")
    top_k: int = Field(0, ge=0, le=100, description="How many best prompts to return per component.")
    embeddings: bool = Field(False, description="Return the image features (fp16, base64).")
    head: Annotated[str, Field(pattern=HEAD_NAME_PATTERN)] | Head | None = Field(
        None,
        exclude_if=lambda head: head is None,
        description="A head's name on the workers, or a head of the job's own; gives `p_keep` and `keep`.",
    )
    model: ModelName | None = Field(
        None,
        exclude_if=lambda model: model is None,
        description="Name of the model (`MASKSCORE_MODEL_NAME` of its workers) that is to score; left out, or "
        "`default`: the model of workers without a name.",
    )

    @model_validator(mode="after")
    def _different_views(self) -> ScoringOptions:
        seen: list[dict[str, Any]] = []
        for view in self.views:
            if view.recipe in seen:
                raise ValueError(f"the view {view.text} is given more than once, and would count twice")
            seen.append(view.recipe)
        return self

    @model_validator(mode="after")
    def _thresholds_of_the_method(self) -> ScoringOptions:
        if self.method == "sigmoid" and self.thresholds != Thresholds():
            raise ValueError("`thresholds` are those of the method softmax; sigmoid takes `sigmoid_thresholds`")
        if self.method != "sigmoid" and self.sigmoid_thresholds != SigmoidThresholds():
            raise ValueError(f"`sigmoid_thresholds` are those of the method sigmoid, and the method is {self.method}")
        return self

    @property
    def views(self) -> tuple[View, ...]:
        """The job's view, then those that it is averaged with."""
        own = View(treatment=self.treatment, frame=self.frame, alpha=self.alpha, blur=self.blur, context=self.context)
        return own, *self.average_with

    @property
    def views_text(self) -> str:
        """The views in a word: ``original``, ``blur/context+raw_crop/pad``."""
        return "+".join(view.text for view in self.views)
