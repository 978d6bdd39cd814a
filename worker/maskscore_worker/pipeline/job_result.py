"""The result document of a job: its components, its notices, and what computed it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from maskscore.errors import WarningCode
from maskscore.formats import UnreadableMask
from maskscore.heads import HeadApplication
from maskscore.ledger import Claim
from maskscore.schema import (
    Component,
    HeadIdentity,
    ImageInfo,
    Job,
    JobResult,
    JobState,
    Mask,
    ModelIdentity,
    Notice,
    PromptSet,
    PromptSetIdentity,
    Skipped,
    Timings,
    ViewUsed,
    assembled,
)
from maskscore.storage import FetchedObject
from maskscore_worker.inputs import DecodedImage
from maskscore_worker.masks import Region, SkippedRegion
from maskscore_worker.scoring import Scores
from maskscore_worker.telemetry import StageTimer

__all__ = ["build_components", "build_result"]

_STAGES = ("fetch", "decode", "regions", "crops", "encode", "scoring")


def build_components(
    regions: Sequence[Region | SkippedRegion],
    masks: Sequence[Mask | UnreadableMask],
    scores: Sequence[Scores],
    features: npt.NDArray[np.float32] | None,
    *,
    embeddings: bool,
    head: HeadApplication | None,
) -> list[Component]:
    """Return the components of regions, in their order.

    ``scores`` and ``features`` ``(n, D)`` are of those regions that are not skipped; features become ``embeddings``
    where they are wanted. Raises :class:`~maskscore.errors.HeadMismatch` where the head cannot read the features.
    """
    components = []
    scored = 0
    for region in regions:
        outcome: dict[str, Any]
        if isinstance(region, SkippedRegion):
            outcome = {"skipped": Skipped(code=str(region.code), message=region.message)}
        else:
            outcome = scores[scored]._asdict()
            if embeddings and features is not None:
                outcome["embedding"] = base64.b64encode(features[scored].astype("<f2").tobytes()).decode()
            if head is not None:
                outcome |= head.decide(scores[scored], None if features is None else features[scored]).fields()
            scored += 1
        outcome["id"], outcome["index"], outcome["part"] = region.id, region.index, region.part
        outcome["box"], outcome["area"], outcome["upstream"] = region.box, region.area, masks[region.index].upstream
        components.append(assembled(Component, outcome))
    return components


def build_result(
    job: Job,
    claim: Claim,
    *,
    image: DecodedImage,
    image_object: FetchedObject,
    model: ModelIdentity,
    prompts: PromptSet,
    head: HeadIdentity | None,
    components: list[Component],
    notices: list[Notice],
    encoded: int,
    cached: int,
    timer: StageTimer,
    total_s: float,
    worker: str,
) -> JobResult:
    """Return the result of a job that was scored, with a notice where none of its masks was.

    ``encoded`` counts the crops that went through the model, ``cached`` the components that needed none.
    """
    height, width = image.pixels.shape[:2]
    views = job.options.views
    specified = len(views) == 1 and views[0].specified
    result = JobResult(
        job_id=job.job_id,
        batch_id=job.batch_id,
        state=JobState.SUCCEEDED,
        image=ImageInfo(
            uri=job.image.uri,
            width=width,
            height=height,
            etag=image_object.etag,
            version_id=image_object.version_id,
            format=image.format,
            exif_orientation=image.exif_orientation,
            orientation_applied=image.orientation_applied,
        ),
        model=model,
        prompts=PromptSetIdentity.of(prompts),
        treatment=job.options.treatment,
        views=[] if specified else [ViewUsed(**view.recipe) for view in views],
        method=job.options.method,
        head=head,
        components=components,
        warnings=notices,
        encoded=encoded,
        cached=cached,
        timings=Timings(
            queue=(claim.claimed_at - claim.submitted_at).total_seconds(),
            total=total_s,
            **{name: timer.seconds(name) for name in _STAGES},
        ),
        attempts=claim.attempt,
        worker=worker,
        submitted_at=claim.submitted_at,
    )
    if result.no_mask_scored:
        notice = Notice(code=WarningCode.NO_MASK_SCORED, message=result.why_no_mask_scored)
        return result.model_copy(update={"warnings": [*notices, notice]})
    return result
