"""The corridor: one job, front to back. Fetch, decode, regions, crops, batcher, scoring; storing is the task's."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

import numpy as np
import numpy.typing as npt

from maskscore.errors import FailureCode, JobError, WarningCode
from maskscore.formats import MasksDocumentError, Orphans, UnreadableMask, read_masks
from maskscore.imaging import SWAPS_SIDES
from maskscore.ledger import Claim
from maskscore.masks import count_fitting, drawable
from maskscore.schema import (
    Component,
    ImageInfo,
    Job,
    JobResult,
    JobState,
    Mask,
    MasksRef,
    ModelIdentity,
    Notice,
    PromptSet,
    PromptSetIdentity,
    ScoringOptions,
    Skipped,
    Timings,
    View,
    ViewUsed,
)
from maskscore.settings import CropMode, WorkerSettings
from maskscore.storage import Objects, path_in
from maskscore_worker.batcher import Batcher, Caller
from maskscore_worker.cancellation import patiently
from maskscore_worker.crops import Cropper
from maskscore_worker.features import (
    FeatureCache,
    PromptFeatureCache,
    ViewedFeatures,
    features_identity,
    resolve_prompt_set,
)
from maskscore_worker.inputs import DecodedImage, decode_image, header_size
from maskscore_worker.masks import Region, SkippedRegion, check_sizes, find_regions
from maskscore_worker.model import ClipModel, DeviceCheck
from maskscore_worker.scoring import Scores, score
from maskscore_worker.telemetry import Stopwatch

__all__ = ["Pipeline"]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Everything a job needs, loaded once: the model, what is before it, prompt features, object access.

    ``crop_mode`` is the settings', but for a model whose transform is not the usual one: that takes ``reference``.
    """

    settings: WorkerSettings
    crop_mode: CropMode
    model: ClipModel
    cropper: Cropper
    batcher: Batcher
    features: PromptFeatureCache
    objects: Objects
    worker: str
    device_check: DeviceCheck
    cache: FeatureCache | None = None

    def run(self, job: Job, claim: Claim, check: Callable[[], None], watch: Stopwatch | None = None) -> JobResult:
        """Score one job.

        ``check`` is called between the steps and may raise to stop the job; ``watch`` counts the time in each step.
        Raises :class:`~maskscore.errors.JobError` for everything that is wrong with the job or its objects.
        """
        with self.batcher.caller() as caller:
            return self._run(job, claim, check, watch or Stopwatch(), caller)

    def _run(self, job: Job, claim: Claim, check: Callable[[], None], watch: Stopwatch, caller: Caller) -> JobResult:
        started = time.perf_counter()
        prompt_set = resolve_prompt_set(job.options.prompts, self.settings.prompts_dir)
        with watch.stage("encode"):
            prompt_features = self.features.get(prompt_set)
        with watch.stage("fetch"):
            fetched_masks = self._fetched_masks(job, check)
            check()
            fetched = patiently(
                lambda: self.objects.read(
                    job.image.uri,
                    what="image",
                    max_bytes=self.settings.max_image_bytes,
                    etag=job.image.etag,
                    version_id=job.image.version_id,
                ),
                check,
            )
        check()
        with watch.stage("decode"):
            doubts: list[str] = []
            masks, orphans = self._masks(job, fetched_masks, fetched.data, doubts)
            check()
            image = decode_image(
                fetched.data,
                uri=job.image.uri,
                orientation=job.image.orientation,
                count_fitting=lambda height, width: count_fitting(masks, height, width),
                max_pixels=self.settings.max_pixels,
            )
        check()
        height, width = image.pixels.shape[:2]
        with watch.stage("regions"):
            check_sizes(masks, height, width)
        features = self._features(job, fetched.data, image)
        components = self._score(job, masks, image, prompt_set, prompt_features, features, watch, check, caller)
        notices = list(image.notices)
        if orphans.count:
            message = f"In the masks' file {orphans}; they are not scored."
            notices.append(Notice(code=WarningCode.ANNOTATIONS_WITHOUT_IMAGE, message=message))
        notices += [Notice(code=WarningCode.MASKS_DOUBTFUL, message=doubt) for doubt in doubts]
        notices += _strays(masks)
        if not masks:
            notices.append(
                Notice(code=WarningCode.NO_MASKS, message="The job has no masks, so there is nothing to score.")
            )
        stages = ("fetch", "decode", "regions", "crops", "encode", "scoring")
        result = JobResult(
            job_id=job.job_id,
            batch_id=job.batch_id,
            state=JobState.SUCCEEDED,
            image=ImageInfo(
                uri=job.image.uri,
                width=width,
                height=height,
                etag=fetched.etag,
                version_id=fetched.version_id,
                format=image.format,
                exif_orientation=image.exif_orientation,
                orientation_applied=image.orientation_applied,
            ),
            model=self.identity,
            prompts=PromptSetIdentity(
                name=prompt_set.name,
                digest=prompt_set.digest,
                positive=len(prompt_set.positive),
                negative=len(prompt_set.negative),
                neutral=len(prompt_set.neutral),
            ),
            treatment=job.options.treatment,
            views=_views_used(job.options),
            method=job.options.method,
            components=components,
            warnings=notices,
            encoded=features.encoded,
            cached=features.cached,
            timings=Timings(
                queue=(claim.claimed_at - claim.submitted_at).total_seconds(),
                total=time.perf_counter() - started,
                **{name: watch.seconds(name) for name in stages},
            ),
            attempts=claim.attempt,
            worker=self.worker,
            submitted_at=claim.submitted_at,
        )
        if result.no_mask_scored:
            notices.append(Notice(code=WarningCode.NO_MASK_SCORED, message=result.why_no_mask_scored))
            return result.model_copy(update={"warnings": notices})
        return result

    @property
    def identity(self) -> ModelIdentity:
        """What computes the features here."""
        return ModelIdentity(
            architecture=self.model.architecture,
            weights_digest=self.model.weights_digest,
            image_size=self.model.image_size,
            precision=self.model.precision,
            crop_mode=self.crop_mode,
        )

    def _fetched_masks(self, job: Job, check: Callable[[], None]) -> bytes | None:
        """Return the masks' object, or ``None`` where they are in the job itself."""
        reference = job.masks
        if not isinstance(reference, MasksRef):
            self._limit(len(reference), "masks")
            return None
        return patiently(
            lambda: self.objects.read(
                reference.uri, what="masks", max_bytes=self.settings.max_masks_bytes, etag=reference.etag
            ),
            check,
        ).data

    def _masks(
        self, job: Job, data: bytes | None, image: bytes, doubts: list[str]
    ) -> tuple[list[Mask | UnreadableMask], Orphans]:
        """Return the job's masks, and what their file has besides of no image; ``doubts`` is as for ``read_masks``."""
        orphans = Orphans()
        if not isinstance(job.masks, MasksRef) or data is None:
            return list(job.masks) if isinstance(job.masks, list) else [], orphans
        try:
            masks = read_masks(
                data,
                image_name=path_in(job.image.uri),
                file_name=job.masks.uri,
                image_id=job.masks.image_id,
                check_count=lambda count: self._limit(count, "masks"),
                format=job.masks.format,
                size=header_size(image, job.image.orientation, max_pixels=self.settings.max_pixels),
                max_pixels=self.settings.max_pixels,
                max_bytes=self.settings.max_masks_bytes,
                orphans=orphans,
                doubts=doubts,
            )
        except MasksDocumentError as error:
            raise JobError(FailureCode.MASKS_INVALID, f"{job.masks.uri}: {error}") from error
        return masks, orphans

    def _limit(self, count: int, what: str) -> None:
        if count > self.settings.max_masks:
            raise JobError(
                FailureCode.TOO_MANY_MASKS,
                f"The job has {count:,} {what}; at most {self.settings.max_masks:,} are taken (MASKSCORE_MAX_MASKS). "
                "Split it into several jobs of the same image.",
            )

    def _score(
        self,
        job: Job,
        masks: list[Mask | UnreadableMask],
        image: DecodedImage,
        prompt_set: PromptSet,
        prompt_features: npt.NDArray[np.float32],
        viewed: ViewedFeatures,
        watch: Stopwatch,
        check: Callable[[], None],
        caller: Caller,
    ) -> list[Component]:
        height, width = image.pixels.shape[:2]
        with watch.stage("crops"):
            opened = self.cropper.open(image.pixels)
        regions = find_regions(
            masks,
            height=height,
            width=width,
            min_area=job.options.min_area,
            split_components=job.options.split_components,
            check_count=lambda count: self._limit(count, "components"),
            has_two_frames=image.exif_orientation in SWAPS_SIDES,
        )
        components: list[Component] = []
        # As many crops as a batch takes are in memory at a time, however many masks the job has.
        while True:
            found: list[Region | SkippedRegion] = []
            to_score: list[Region] = []
            while len(to_score) < self.settings.max_batch:
                # Masks that are skipped, or slow to draw, fill no batch.
                check()
                with watch.stage("regions"):
                    region = next(regions, None)
                if region is None:
                    break
                found.append(region)
                if isinstance(region, Region):
                    to_score.append(region)
            if not found:
                return components
            self._limit(len(components) + len(found), "components")
            check()
            scores: Iterator[tuple[Scores, npt.NDArray[np.float32]]] = iter(())
            if to_score:
                last = region is None
                features = viewed.of(to_score, opened, caller, watch, check, last=last)
                with watch.stage("scoring"):
                    scored = score(
                        features,
                        prompt_features,
                        prompt_set,
                        logit_scale=self.model.logit_scale,
                        options=job.options,
                    )
                scores = zip(scored, features, strict=True)
            for region in found:
                upstream = masks[region.index].upstream
                if isinstance(region, Region):
                    values, feature = next(scores)
                    components.append(_component(region, upstream, values, feature if job.options.embeddings else None))
                else:
                    components.append(_skipped(region, upstream))

    def _features(self, job: Job, data: bytes, image: DecodedImage) -> ViewedFeatures:
        def identity(view: View) -> bytes:
            return features_identity(
                data,
                view,
                self.identity,
                orientation_applied=image.orientation_applied,
                release=metadata.version("maskscore"),
            )

        return ViewedFeatures(job.options.views, self.cache, identity)


def _strays(masks: list[Mask | UnreadableMask]) -> list[Notice]:
    """Say which masks have polygons without area beside others."""
    found = [
        f"{mask.id!r:.60} ({len(mask.segmentation) - len(drawable(mask.segmentation))} of {len(mask.segmentation)})"
        for mask in masks
        if isinstance(mask, Mask)
        and isinstance(mask.segmentation, list)
        and len(mask.segmentation) > len(drawable(mask.segmentation))
    ]
    if not found:
        return []
    some = f"{', '.join(found[:3])}{', ...' if len(found) > 3 else ''}"
    message = f"Polygons of fewer than three points are left out, in {len(found):,} masks: {some}."
    return [Notice(code=WarningCode.POLYGONS_LEFT_OUT, message=message)]


def _views_used(options: ScoringOptions) -> list[ViewUsed]:
    views = options.views
    if len(views) == 1 and views[0].specified:
        return []
    return [ViewUsed(**view.recipe) for view in views]


def _component(
    region: Region, upstream: dict[str, object], scores: Scores, feature: npt.NDArray[np.float32] | None
) -> Component:
    return Component(
        id=region.id,
        index=region.index,
        part=region.part,
        box=region.box,
        area=region.area,
        s_pos=scores.s_pos,
        s_neg=scores.s_neg,
        s_pos_text=scores.s_pos_text,
        s_neg_text=scores.s_neg_text,
        p_pos_sum=scores.p_pos_sum,
        p_neg_sum=scores.p_neg_sum,
        semantic_multiplier=scores.semantic_multiplier,
        top_k=scores.top_k,
        embedding=None if feature is None else base64.b64encode(feature.astype("<f2").tobytes()).decode(),
        upstream=upstream,
    )


def _skipped(region: SkippedRegion, upstream: dict[str, object]) -> Component:
    return Component(
        id=region.id,
        index=region.index,
        part=region.part,
        box=region.box,
        area=region.area,
        skipped=Skipped(code=str(region.code), message=region.message),
        upstream=upstream,
    )
