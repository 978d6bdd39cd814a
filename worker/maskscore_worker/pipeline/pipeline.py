"""One job, front to back: fetch, decode, regions, crops, batch, score, store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from maskscore.errors import FailureCode, HeadMismatch, InvalidDocumentError, JobError
from maskscore.formats import UnreadableMask
from maskscore.heads import HeadApplication, check_head_fits, find_head
from maskscore.imaging import SWAPS_SIDES
from maskscore.ledger import Claim
from maskscore.masks import count_fitting
from maskscore.schema import Component, Head, Job, JobResult, Mask, PromptSet, ScoringOptions
from maskscore.settings import CropMode, WorkerSettings
from maskscore.storage import Objects, StoredResult, store_result
from maskscore_worker.batching import Batcher, BatchSource
from maskscore_worker.features import (
    FeatureCache,
    FeatureExtractor,
    PromptFeatureCache,
    region_portions,
    resolve_prompt_set,
)
from maskscore_worker.inputs import (
    Fetched,
    ImageFile,
    check_count,
    decode_image,
    fetch,
    read_job_masks,
    run_with_cancellation,
)
from maskscore_worker.masks import Region, check_sizes, find_copies_and_parts, find_regions
from maskscore_worker.model import ClipModel, DeviceCheck
from maskscore_worker.pipeline.fast_path import FastPath
from maskscore_worker.pipeline.job_result import build_components, build_result
from maskscore_worker.scoring import check_method, score
from maskscore_worker.telemetry import StageTimer

__all__ = ["Pipeline"]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The steps of a job, and what they need, which is loaded once per process.

    ``crop_mode`` is the settings', except for a model whose transform is not the usual one: that takes ``reference``.
    """

    settings: WorkerSettings
    crop_mode: CropMode
    model: ClipModel
    fast_path: FastPath
    batcher: Batcher
    prompt_features: PromptFeatureCache
    objects: Objects
    worker: str
    device_check: DeviceCheck
    feature_cache: FeatureCache | None = None

    def run(
        self, job: Job, claim: Claim, check: Callable[[], None], timer: StageTimer
    ) -> tuple[JobResult, StoredResult]:
        """Score one job and store its result.

        ``check`` is called between the steps and may raise to stop the job; ``timer`` measures each step. Raises
        :class:`~maskscore.errors.JobError` for everything that is wrong with the job or its objects.
        """
        result = self.score(job, claim, check, timer)
        with timer.stage("store"):
            store = partial(store_result, job, result, self.objects)
            return result, store() if job.result_uri is None else run_with_cancellation(store, check)

    def score(self, job: Job, claim: Claim, check: Callable[[], None], timer: StageTimer) -> JobResult:
        """Do all steps of :meth:`run` but the last one."""

        # Announced from the start: others' batches wait a little for this job's crops.
        def fetch_objects() -> Fetched:
            return fetch(job, self.objects, self.settings, check)

        with self.batcher.source() as source:
            return self._score(job, claim, check, timer, source, fetch_objects)[0]

    def score_fetched(
        self, job: Job, fetched: Fetched, claim: Claim, check: Callable[[], None], timer: StageTimer
    ) -> tuple[JobResult, list[Mask | UnreadableMask]]:
        """Do what :meth:`score` does with objects that were read already; return the job's masks, too."""
        with self.batcher.source() as source:
            return self._score(job, claim, check, timer, source, lambda: fetched)

    def _score(
        self,
        job: Job,
        claim: Claim,
        check: Callable[[], None],
        timer: StageTimer,
        source: BatchSource,
        fetch_objects: Callable[[], Fetched],
    ) -> tuple[JobResult, list[Mask | UnreadableMask]]:
        started = time.perf_counter()
        settings, options = self.settings, job.options
        check_method(options, self.model.logit_bias, self.model.architecture)
        prompts = resolve_prompt_set(options.prompts, settings.prompts_dir)
        identity = self.model.identity(self.crop_mode)
        head = self.head_of(options, prompts, views=options.views_text)
        with timer.stage("encode"):
            prompt_features = self.prompt_features.get(prompts)

        with timer.stage("fetch"):
            fetched = fetch_objects()
        check()

        with timer.stage("decode"):
            file = ImageFile(fetched.image.data, job.image.uri)
            masks = read_job_masks(job, fetched.masks, file, settings)
            check()
            image = decode_image(
                file,
                orientation=job.image.orientation,
                count_fitting=lambda height, width: count_fitting(masks.masks, height, width),
                max_pixels=settings.max_pixels,
                memory=self.fast_path.memory,
            )
        check()

        height, width = image.pixels.shape[:2]
        with timer.stage("regions"):
            check_sizes(masks.masks, height, width)
            has_two_frames = image.exif_orientation in SWAPS_SIDES
            displaced = None
            if options.nms is not None or options.drop_parts is not None:
                check_count(len(masks.masks), "masks", settings)
                displaced = find_copies_and_parts(
                    masks.masks,
                    height=height,
                    width=width,
                    min_area=options.min_area,
                    nms=options.nms,
                    drop_parts=options.drop_parts,
                    has_two_frames=has_two_frames,
                )
                check()
        regions = find_regions(
            masks.masks,
            height=height,
            width=width,
            min_area=options.min_area,
            split_components=options.split_components,
            check_count=lambda count: check_count(count, "components", settings),
            has_two_frames=has_two_frames,
            displaced=displaced,
        )
        with timer.stage("crops"):
            image_crops = self.fast_path.open(image.pixels)
        identity = identity.model_copy(update={"stepped_down": self.fast_path.stepped_down})
        extractor = FeatureExtractor(
            fetched.image.data, image.orientation_applied, options.views, identity, self.feature_cache
        )
        components: list[Component] = []
        for portion, last in region_portions(regions, settings.max_batch, check, timer):
            check_count(len(components) + len(portion), "components", settings)
            check()
            to_score = [region for region in portion if isinstance(region, Region)]
            scores, features = [], None
            if to_score:
                features = extractor.extract(
                    to_score,
                    crop=lambda missing, view: image_crops.make(missing, view, check),
                    encode=source.encode,
                    timer=timer,
                    last=last,
                )
                with timer.stage("scoring"):
                    model = self.model
                    scores = score(
                        features, prompt_features, prompts, model.logit_scale, options, logit_bias=model.logit_bias
                    )
            try:
                components += build_components(
                    portion, masks.masks, scores, features, embeddings=options.embeddings, head=head
                )
            except HeadMismatch as error:
                raise JobError(FailureCode.HEAD_MISMATCH, str(error)) from error

        result = build_result(
            job,
            claim,
            image=image,
            image_object=fetched.image,
            model=identity.model_copy(update={"name": settings.model_name}),
            prompts=prompts,
            head=None if head is None else head.head.identity,
            components=components,
            notices=[*image.notices, *masks.notices],
            encoded=extractor.encoded,
            cached=extractor.cached,
            timer=timer,
            total_s=time.perf_counter() - started,
            worker=self.worker,
        )
        return result, masks.masks

    def head_of(self, options: ScoringOptions, prompts: PromptSet, *, views: str) -> HeadApplication | None:
        """Return the head that options ask for, which holds for this model, these prompts and ``views`` as text.

        Raises :class:`~maskscore.errors.JobError` with ``head_unknown``, ``head_invalid`` or ``head_mismatch``.
        """
        if options.head is None:
            return None
        try:
            if not isinstance(options.head, Head):
                head = find_head(options.head, self.settings.heads_dir)
            else:
                head = options.head
            check_head_fits(
                head,
                weights_digest=self.model.weights_digest,
                views=views,
                method=options.method,
                prompts_digest=prompts.digest,
            )
            return HeadApplication(head)
        except InvalidDocumentError as error:
            raise JobError(FailureCode(error.code), str(error)) from error
