"""How the masks of a job are scored: a part of the job document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from maskscore.schema.document import Document
from maskscore.schema.prompt_set import PromptSet
from maskscore.schema.views import ALPHA, BLUR, CONTEXT, Frame, Treatment, View

__all__ = ["Method", "ScoringOptions", "ShortText", "Thresholds"]

Method = Literal["softmax", "cosine"]
ShortText = Annotated[str, Field(max_length=1024)]


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
    min_area: int = Field(1, ge=1, description="Masks (or components) of fewer pixels are skipped.")
    split_components: bool = Field(False, description="Score each 8-connected component of a mask by itself.")
    top_k: int = Field(0, ge=0, le=100, description="How many best prompts to return per component.")
    embeddings: bool = Field(False, description="Return the image features (fp16, base64).")

    @model_validator(mode="after")
    def _different_views(self) -> ScoringOptions:
        seen: list[dict[str, Any]] = []
        for view in self.views:
            if view.recipe in seen:
                raise ValueError(f"the view {view.text} is given more than once, and would count twice")
            seen.append(view.recipe)
        return self

    @property
    def views(self) -> tuple[View, ...]:
        """The job's view, then those that it is averaged with."""
        own = View(treatment=self.treatment, frame=self.frame, alpha=self.alpha, blur=self.blur, context=self.context)
        return own, *self.average_with
