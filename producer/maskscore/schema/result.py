"""The result document: what a worker answers. JSON, ``version`` 1.

It is one document with all its parts, so it is longer than other modules.
"""

from __future__ import annotations

import base64
from collections import Counter
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field

from maskscore.schema.document import Document
from maskscore.schema.head import HeadIdentity
from maskscore.schema.job import DOCUMENT_VERSION, Frame, Method, Treatment, View
from maskscore.schema.prompt_set import PromptSet
from maskscore.schema.shard import ShardOutcome

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "Box",
    "Component",
    "Failure",
    "ImageInfo",
    "Interpolation",
    "JobResult",
    "JobState",
    "ModelIdentity",
    "Notice",
    "PromptScore",
    "PromptSetIdentity",
    "ResizeMode",
    "ResizeUsed",
    "Skipped",
    "Timings",
    "ViewUsed",
]

Box = tuple[int, int, int, int]
"""``(x, y, width, height)`` in pixels; the smallest box that holds the mask."""


ResizeMode = Literal["shortest", "squash", "longest"]
"""What open_clip's transform does with a crop that is not square: cut its ends off, distort it, or fill it up."""

Interpolation = Literal["bicubic", "bilinear"]
"""How open_clip's transform resizes; both with antialiasing."""


class JobState(StrEnum):
    """Where a job is, as its submitter sees it."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Failure(Document):
    """Why a job has no result: a :class:`~maskscore.codes.FailureCode` and a sentence to act on."""

    code: str
    message: str


class Notice(Document):
    """What the reader of a successful result should know; ``code`` is a :class:`~maskscore.codes.WarningCode`."""

    code: str
    message: str


class Skipped(Document):
    """Why this component has no score; ``code`` is a :class:`~maskscore.codes.SkipCode`."""

    code: str
    message: str


class PromptScore(Document):
    """One prompt's score: a probability (``softmax``, ``sigmoid``) or a cosine (``cosine``)."""

    text: str
    group: Literal["positive", "negative", "neutral"]
    score: float


class Component(Document):
    """One mask, or with ``split_components`` one connected part of it.

    With ``method="softmax"`` all scores are probabilities over all prompts together. With ``method="sigmoid"`` each
    prompt has a probability of its own, ``s_pos`` and ``s_neg`` are the groups' largest, and the sums, which would have
    no meaning, are ``None``; a multiplier of 0.5 then says that no prompt fits. With ``method="cosine"``, ``s_pos`` and
    ``s_neg`` are the groups' largest cosines and the sums and the multiplier are ``None``. All scores are ``None``
    where ``skipped`` says why.
    """

    id: str
    index: int = Field(description="Position of the mask in the job, from 0.")
    part: int | None = Field(None, description="Connected component's number, largest first, from 0.")
    box: Box | None = None
    area: int | None = Field(None, description="Pixels in the mask.")
    s_pos: float | None = None
    s_neg: float | None = None
    s_pos_text: str | None = None
    s_neg_text: str | None = None
    p_pos_sum: float | None = None
    p_neg_sum: float | None = None
    semantic_multiplier: float | None = None
    top_k: list[PromptScore] | None = None
    embedding: str | None = Field(None, description="Base64 of the L2-normalised feature, little-endian fp16.")
    p_keep: float | None = Field(
        None, exclude_if=lambda value: value is None, description="Probability by the head that it is to be kept."
    )
    keep: bool | None = Field(
        None, exclude_if=lambda value: value is None, description="Whether the head's threshold is reached."
    )
    head_class: str | None = Field(
        None, exclude_if=lambda value: value is None, description="Most probable class, by a head by class."
    )
    skipped: Skipped | None = None
    upstream: dict[str, Any] = Field(default_factory=dict, description="The mask's further fields, untouched.")

    def embedding_vector(self) -> npt.NDArray[np.float16] | None:
        """Return the embedding as an array of shape ``(D,)``, or ``None`` where the job did not ask. Needs NumPy."""
        if self.embedding is None:
            return None
        import numpy as np

        return np.frombuffer(base64.b64decode(self.embedding), dtype="<f2")


class ImageInfo(Document):
    """The image as it was scored."""

    uri: str
    width: int = Field(description="Pixels, in the frame that the masks and boxes use.")
    height: int
    etag: str | None = None
    version_id: str | None = None
    format: str = Field(description="Pillow's name of the format, read from the content.")
    exif_orientation: int = Field(1, ge=1, le=8)
    orientation_applied: bool = Field(False, description="Whether the image was turned as its EXIF tag says.")


class ResizeUsed(Document):
    """How the model's transform makes a crop square."""

    mode: ResizeMode
    interpolation: Interpolation
    fill: tuple[int, int, int] = Field((0, 0, 0), description="RGB that `longest` fills up with.")


class ModelIdentity(Document):
    """What computed the features.

    Two results are comparable when this, but for the ``name``, and the prompts' digest are equal.
    """

    architecture: str
    weights_digest: str = Field(description="`sha256:…` of the weights file.")
    image_size: int = Field(description="Side of the square crop, in pixels.")
    precision: str
    crop_mode: str
    crop_mode_reason: str | None = Field(
        None,
        exclude_if=lambda reason: reason is None,
        description="Why crops of this model are made in the mode `reference` alone; else left out.",
    )
    resize: ResizeUsed | None = Field(
        None,
        exclude_if=lambda resize: resize is None,
        description="How a crop is made square; left out for `shortest` by `bicubic`.",
    )
    name: str | None = Field(
        None,
        exclude_if=lambda name: name is None,
        description="Name under which the worker serves the model; left out for the default model.",
    )
    stepped_down: tuple[str, ...] = Field(
        (),
        exclude_if=lambda parts: not parts,
        description="Parts of the worker's fast path that gave other values than the plain path, which was taken "
        "instead: `crops`, `forward`, `graphs`, `precision`, `threads`. Left out where all agree.",
    )


class PromptSetIdentity(Document):
    """Which prompts were asked."""

    name: str
    digest: str
    positive: int = Field(description="Number of prompts in the group.")
    negative: int
    neutral: int = 0

    @classmethod
    def of(cls, prompts: PromptSet) -> Self:
        """Return a set's identity."""
        counts = {group: len(getattr(prompts, group)) for group in ("positive", "negative", "neutral")}
        return cls(name=prompts.name, digest=prompts.digest, **counts)


class ViewUsed(Document):
    """A view that features were made under: the recipe's names and versions, and the numbers that it took.

    A version is raised when its recipe gives other pixels than before.
    """

    treatment: Treatment
    treatment_version: int
    frame: Frame
    frame_version: int
    alpha: float | None = None
    blur: float | None = None
    context: float | None = None

    @property
    def text(self) -> str:
        """The view in a word; see :attr:`maskscore.schema.job.View.text`."""
        numbers = {name: value for name in ("alpha", "blur", "context") if (value := getattr(self, name)) is not None}
        return View(treatment=self.treatment, frame=self.frame, **numbers).text


class Timings(Document):
    """Seconds per stage of the last attempt; ``queue`` is from submission to the claim."""

    queue: float
    fetch: float
    decode: float
    regions: float
    crops: float
    encode: float
    scoring: float
    total: float


class JobResult(Document):
    """How a job ended. ``components`` is in the order of the job's masks; it is empty unless ``succeeded``."""

    version: Literal[1] = DOCUMENT_VERSION
    job_id: str
    batch_id: str | None = None
    state: JobState
    error: Failure | None = None
    image: ImageInfo | None = None
    model: ModelIdentity | None = None
    prompts: PromptSetIdentity | None = None
    treatment: Treatment | None = None
    views: list[ViewUsed] = Field(
        default_factory=list,
        exclude_if=lambda views: not views,
        description="What the features were made of; left out for the specification's `treatment` alone, cut.",
    )
    method: Method | None = None
    head: HeadIdentity | None = Field(
        None, exclude_if=lambda head: head is None, description="What made `p_keep` and `keep`."
    )
    components: list[Component] = Field(default_factory=list)
    shard: ShardOutcome | None = Field(
        None, exclude_if=lambda shard: shard is None, description="Of a shard, whose masks are in its parts."
    )
    warnings: list[Notice] = Field(default_factory=list)
    encoded: int = Field(0, description="Crops that went through the model for this job; equal ones go once.")
    cached: int = Field(0, description="Components whose features came from the worker's cache.")
    timings: Timings | None = None
    attempts: int = 0
    worker: str | None = None
    submitted_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def views_text(self) -> str | None:
        """What was scored in a word: ``original``, ``blur/context+raw_crop/pad``; ``None`` where nothing was."""
        return "+".join(view.text for view in self.views) or self.treatment

    @property
    def no_mask_scored(self) -> bool:
        """Whether the job succeeded and had masks, each of which was skipped; a worker adds a warning of this code."""
        if self.shard is not None:
            return self.shard.counts.masks == self.shard.counts.skipped
        return bool(self.components) and all(component.skipped is not None for component in self.components)

    @property
    def why_no_mask_scored(self) -> str:
        """The sentence of the warning ``no_mask_scored``: how many masks were skipped, under which codes, and why."""
        if self.shard is not None:
            counts = self.shard.counts
            return (
                f"None of the {counts.masks:,} masks of {counts.images:,} images was scored, "
                f"{counts.failed:,} of which failed: the columns `code` of the table `images` and `skipped` of `masks` "
                "say why."
            )
        skipped = [component.skipped for component in self.components if component.skipped is not None]
        codes = Counter(reason.code for reason in skipped)
        listed = ", ".join(f"{count:,} {code}" for code, count in codes.most_common())
        what = f"None of the {len(skipped):,} masks was" if len(skipped) > 1 else "The only mask was not"
        return f"{what} scored: {listed}. The first: {skipped[0].message}" if skipped else ""
