"""Streams a shard through the pipeline: its images → their outcomes, in order → committed parts."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

from maskscore.errors import FailureCode, JobError
from maskscore.ledger import Claim
from maskscore.parts import CocoSegmentation, ImageOutcome, part_tables, shard_counts
from maskscore.schema import Failure, JobResult, JobState, PartsSource, Shard, ShardCounts, ShardCursor, TarSource
from maskscore_worker.features import resolve_prompt_set
from maskscore_worker.model import DeviceBroken
from maskscore_worker.pipeline import Pipeline
from maskscore_worker.scoring import check_method
from maskscore_worker.shards.parts_rescoring import CommitPart, rescore_parts
from maskscore_worker.shards.shard_images import ShardImage, ShardImages, open_images
from maskscore_worker.telemetry import StageTimer

__all__ = ["CommitPart", "score_shard"]

log = logging.getLogger(__name__)

_AHEAD: Final = 2
"""Images in memory per thread of the pipeline: one that is scored and one that waits, or whose result does."""

_COMMON: Final = 20
"""Images that must fail for one cause, at least, before the shard fails with it."""


def score_shard(
    pipeline: Pipeline,
    shard: Shard,
    cursor: ShardCursor,
    commit_part: CommitPart,
    *,
    claim: Claim,
    check: Callable[[], None] = lambda: None,
    begin_alone: Callable[[int], None] | None = None,
) -> ShardCursor:
    """Score the images of a shard from a cursor on, and return the cursor after the last part.

    ``settings.concurrency`` images are decoded, cropped and forwarded side by side; while a part is committed, by a
    thread of its own, the next one is scored. In memory are twice ``concurrency`` images, two parts, and what
    :func:`maskscore.shards.tar_pairs` or :func:`maskscore.shards.listed_pairs` holds. An image that cannot be scored is
    a row of ``images`` with its code. ``check`` is called between the steps of images and may raise to stop; what was
    not committed is dropped. Images at the positions ``claim.poisoned`` are not scored. With ``begin_alone``, which is
    called with the position of each image before it is begun, there is one image at a time.

    Where all images of the first part fail, and they are 20 or more, with a code that stops a run (``stops_run`` in
    :mod:`maskscore.codes`), the shard fails with it, and has no parts. A shard of earlier parts is scored as
    :func:`~maskscore_worker.shards.parts_rescoring.rescore_parts` does.

    Raises :class:`~maskscore.errors.JobError` for a source that cannot be read, for options that no image can be scored
    with, and for what is no image's fault (a store that is away, memory of the device);
    :class:`~maskscore_worker.model.DeviceBroken`, and what ``commit_part`` and ``check`` raise.
    """
    if cursor.done:
        return cursor
    if isinstance(shard.source, PartsSource):
        return rescore_parts(pipeline, shard, shard.source, cursor, commit_part, check=check)
    return _Stream(pipeline, shard, cursor, commit_part, claim, check, begin_alone).run()


class _Stream:
    def __init__(
        self,
        pipeline: Pipeline,
        shard: Shard,
        cursor: ShardCursor,
        commit_part: CommitPart,
        claim: Claim,
        check: Callable[[], None],
        begin_alone: Callable[[int], None] | None,
    ) -> None:
        self._pipeline, self._shard = pipeline, shard
        self._cursor, self._commit_part = cursor, commit_part
        self._claim, self._check, self._begin_alone = claim, check, begin_alone
        options = shard.options
        check_method(options, pipeline.model.logit_bias, pipeline.model.architecture)
        features = pipeline.prompt_features.get(resolve_prompt_set(options.prompts, pipeline.settings.prompts_dir))
        self._dimensions = features.shape[1] if options.embeddings else None

    def run(self) -> ShardCursor:
        pipeline = self._pipeline
        committing: Future[None] | None = None
        with (
            open_images(self._shard, self._cursor, pipeline.objects, pipeline.settings, self._check) as images,
            _threads(pipeline.settings.concurrency, "shard-image") as threads,
            _threads(1, "shard-commit") as committer,
        ):
            for part, first, cursor in self._parts(images, self._outcomes(images, threads)):
                # One part is written and committed while the next one is scored, and no more are held.
                if committing is not None:
                    committing.result()
                committing = committer.submit(self._write, part, first, cursor)
                if self._begin_alone is not None:
                    committing.result()
            if committing is not None:
                committing.result()
        return self._cursor

    def _write(self, part: list[ImageOutcome], first_position: int, cursor: ShardCursor) -> None:
        tables = part_tables(
            part,
            first_position=first_position,
            dimensions=self._dimensions,
            views=self._shard.options.views_text,
            digest=self._shard.digest(cursor.etag or ""),
        )
        # As objects, a part takes three times the memory of its tables: not any more, while it is stored.
        part.clear()
        self._commit_part(tables, cursor.part - 1, cursor)

    def _outcomes(self, images: ShardImages, threads: ThreadPoolExecutor) -> Iterator[tuple[int, ImageOutcome]]:
        """Yield number and outcome of each image, in order, while those behind it are scored."""
        pending: deque[tuple[int, Future[ImageOutcome]]] = deque()
        ahead = 1 if self._begin_alone is not None else _AHEAD * self._pipeline.settings.concurrency
        for image in images:
            self._check()
            if self._begin_alone is not None and image.number not in self._claim.poisoned:
                self._begin_alone(image.number)
            pending.append((image.number, threads.submit(self._outcome, image)))
            while len(pending) >= ahead:
                number, future = pending.popleft()
                yield number, future.result()
        while pending:
            number, future = pending.popleft()
            yield number, future.result()

    def _parts(
        self, images: ShardImages, outcomes: Iterator[tuple[int, ImageOutcome]]
    ) -> Iterator[tuple[list[ImageOutcome], int, ShardCursor]]:
        """Yield the images of each part, the first one's position, and the cursor after them."""
        part: list[ImageOutcome] = []
        masks, last, others = 0, -1, 0
        for number, outcome in outcomes:
            # Only now is it known that the part before this image is not the last one.
            if len(part) >= self._shard.part_images or masks >= self._shard.part_masks:
                first, others = self._cut(images, part, last, others, done=False)
                yield part, first, self._cursor
                part, masks = [], 0
            part.append(outcome)
            masks += len(outcome.result.components)
            last = number
        if not part:
            source = self._shard.source
            what = "none of the members that are asked for" if isinstance(source, TarSource) and source.members else ""
            raise JobError(FailureCode.IMAGE_NOT_FOUND, f"{source.uri} has {what or 'no image and no masks file'}.")
        first, _ = self._cut(images, part, last, others, done=True)
        yield part, first, self._cursor

    def _cut(
        self, images: ShardImages, part: list[ImageOutcome], last: int, others: int, *, done: bool
    ) -> tuple[int, int]:
        """Move the cursor behind a part; return the position of the part's first image, and the others so far."""
        before = self._cursor
        if before.part == 0:
            _check_common_cause(part)
        offset, held, others_now = images.cursor_after(last)
        counts = before.counts + shard_counts(part) + ShardCounts(others=others_now - others)
        etag = images.source_etag or None
        self._cursor = ShardCursor(part=before.part + 1, etag=etag, offset=offset, held=held, done=done, counts=counts)
        return before.counts.images, others_now

    def _outcome(self, image: ShardImage) -> ImageOutcome:
        if image.number in self._claim.poisoned:
            message = (
                "Workers ended while they scored this image, the last time alone, so it probably kills them: look at "
                "it and at its masks, and at the logs of the workers. It was left out."
            )
            return self._failed(image, JobError(FailureCode.POISONED, message))
        try:
            return self._scored(image)
        except JobError as error:
            # What `check` raises stops the shard, and is no image's failure.
            self._check()
            if error.input_may_be_fine:
                raise
            return self._failed(image, error)
        except (DeviceBroken, OSError, MemoryError):
            raise
        except Exception as error:
            # What stops the shard is raised by `check`; all else is this image's, and the next one may be fine.
            self._check()
            log.exception("image %d of shard %s failed", image.number, self._shard.shard_id)
            message = f"Scoring failed: {type(error).__name__}: {error}. The worker's log has the details."
            return self._failed(image, JobError(FailureCode.INTERNAL_ERROR, message))

    def _scored(self, image: ShardImage) -> ImageOutcome:
        job, fetched = image.load()
        result, read = self._pipeline.score_fetched(job, fetched, self._claim, self._check, StageTimer())
        assert result.image is not None
        coco = CocoSegmentation(read, height=result.image.height, width=result.image.width, checked=False)
        segmentations = [
            coco.segmentation(component) if component.box is not None else None for component in result.components
        ]
        return _outcome_of(image, result, segmentations)

    def _failed(self, image: ShardImage, error: JobError) -> ImageOutcome:
        failure = Failure(code=error.code, message=error.message)
        shard = self._shard
        result = JobResult(job_id=shard.shard_id, batch_id=shard.batch_id, state=JobState.FAILED, error=failure)
        return _outcome_of(image, result, [])


def _check_common_cause(part: list[ImageOutcome]) -> None:
    """Raise where all images of a first part have failed with one code whose cause is likely common to all images.

    Rows would say so of each image of a shard that could be run again as soon as the cause is mended.
    """
    errors = [outcome.result.error for outcome in part if outcome.result.error is not None]
    if not len(errors) == len(part) >= _COMMON or len({error.code for error in errors}) > 1:
        return
    code = FailureCode(errors[0].code)
    if code.about.stops_run != "no":
        raise JobError(
            code, f"All {len(part):,} images of the first part failed so, the first with: {errors[0].message}"
        )


@contextmanager
def _threads(count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Yield threads; at the end, what they have not begun is dropped."""
    threads = ThreadPoolExecutor(count, thread_name_prefix=name)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def _outcome_of(image: ShardImage, result: JobResult, segmentations: list[object]) -> ImageOutcome:
    etag = image.etag or (result.image.etag if result.image is not None else None)
    return ImageOutcome(result, image.image, image.masks, segmentations, etag, image.image_offset, image.image_bytes)
