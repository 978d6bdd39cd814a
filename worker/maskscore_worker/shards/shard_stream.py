"""Streams a shard through the pipeline: members of a tar → outcomes of images, in order → committed parts."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final
from urllib.parse import quote

from maskscore.errors import FailureCode, JobError
from maskscore.ledger import Claim
from maskscore.parts import CocoSegmentation, ImageOutcome, PartTables, part_tables
from maskscore.schema import (
    Failure,
    ImageRef,
    Job,
    JobResult,
    JobState,
    MasksRef,
    Shard,
    ShardCounts,
    ShardCursor,
    TarSource,
)
from maskscore.shards import Member, TarPair, TarPairs, tar_pairs
from maskscore.storage import FetchedObject
from maskscore_worker.features import resolve_prompt_set
from maskscore_worker.inputs import Fetched
from maskscore_worker.model import DeviceBroken
from maskscore_worker.pipeline import Pipeline
from maskscore_worker.scoring import check_method
from maskscore_worker.telemetry import StageTimer

__all__ = ["CommitPart", "score_shard"]

log = logging.getLogger(__name__)

CommitPart = Callable[[PartTables, int, ShardCursor], None]
"""Stores a part, given its tables and its number, and then the cursor after it; called for one part after the other."""

_AHEAD: Final = 2
"""Images in memory per thread of the pipeline: one that is scored and one that waits, or whose result does."""


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
    :func:`maskscore.shards.tar_pairs` holds. An image that cannot be scored is a row of ``images`` with its code.
    ``check`` is called between the steps of images and may raise to stop; what was not committed is dropped. Images at
    the positions ``claim.poisoned`` are not scored. With ``begin_alone``, which is called with the position of each
    image before it is begun, there is one image at a time.

    Raises :class:`~maskscore.errors.JobError` for a tar that cannot be read, for options that no image can be scored
    with, and for what is no image's fault (a store that is away, memory of the device);
    :class:`~maskscore_worker.model.DeviceBroken`, and what ``commit_part`` and ``check`` raise.
    """
    if cursor.done:
        return cursor
    if not isinstance(shard.source, TarSource):
        raise JobError(
            FailureCode.DOCUMENT_INVALID, "This release scores shards of tar files; submit loose pairs as single jobs."
        )
    return _Stream(pipeline, shard, shard.source, cursor, commit_part, claim, check, begin_alone).run()


class _Stream:
    def __init__(
        self,
        pipeline: Pipeline,
        shard: Shard,
        source: TarSource,
        cursor: ShardCursor,
        commit_part: CommitPart,
        claim: Claim,
        check: Callable[[], None],
        begin_alone: Callable[[int], None] | None,
    ) -> None:
        self._pipeline, self._shard, self._source = pipeline, shard, source
        self._cursor, self._commit_part = cursor, commit_part
        self._claim, self._check, self._begin_alone = claim, check, begin_alone
        options = shard.options
        check_method(options, pipeline.model.logit_bias, pipeline.model.architecture)
        features = pipeline.prompt_features.get(resolve_prompt_set(options.prompts, pipeline.settings.prompts_dir))
        self._dimensions = features.shape[1] if options.embeddings else None
        self._etag = ""

    def run(self) -> ShardCursor:
        settings = self._pipeline.settings
        threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="shard-image")
        committer = ThreadPoolExecutor(1, thread_name_prefix="shard-commit")
        most = max(settings.max_image_bytes, settings.max_masks_bytes)
        committing: Future[None] | None = None
        try:
            with tar_pairs(
                self._pipeline.objects, self._source.uri, self._cursor, etag=self._source.etag, max_bytes=most
            ) as (pairs, self._etag):
                for tables, cursor in self._parts(pairs, self._outcomes(pairs, threads)):
                    # One part is committed while the next one is scored, and no more are held.
                    if committing is not None:
                        committing.result()
                    committing = committer.submit(self._commit_part, tables, cursor.part - 1, cursor)
                    if self._begin_alone is not None:
                        committing.result()
                if committing is not None:
                    committing.result()
        finally:
            threads.shutdown(cancel_futures=True)
            committer.shutdown(cancel_futures=True)
        return self._cursor

    def _outcomes(self, pairs: TarPairs, threads: ThreadPoolExecutor) -> Iterator[tuple[int, ImageOutcome]]:
        """Yield number and outcome of each image, in order, while those behind it are scored."""
        pending: deque[tuple[int, Future[ImageOutcome]]] = deque()
        ahead = 1 if self._begin_alone is not None else _AHEAD * self._pipeline.settings.concurrency
        for pair in pairs:
            self._check()
            if self._begin_alone is not None and pair.number not in self._claim.poisoned:
                self._begin_alone(pair.number)
            pending.append((pair.number, threads.submit(self._outcome, pair)))
            while len(pending) >= ahead:
                number, future = pending.popleft()
                yield number, future.result()
        while pending:
            number, future = pending.popleft()
            yield number, future.result()

    def _parts(
        self, pairs: TarPairs, outcomes: Iterator[tuple[int, ImageOutcome]]
    ) -> Iterator[tuple[PartTables, ShardCursor]]:
        part: list[ImageOutcome] = []
        masks, last, others = 0, -1, 0
        for number, outcome in outcomes:
            # Only now is it known that the part before this image is not the last one.
            if len(part) >= self._shard.part_images or masks >= self._shard.part_masks:
                tables, others = self._cut(pairs, part, last, others, done=False)
                yield tables, self._cursor
                part, masks = [], 0
            part.append(outcome)
            masks += len(outcome.result.components)
            last = number
        if not part:
            raise JobError(FailureCode.IMAGE_NOT_FOUND, f"{self._source.uri} has no image and no masks file.")
        tables, _ = self._cut(pairs, part, last, others, done=True)
        yield tables, self._cursor

    def _cut(
        self, pairs: TarPairs, part: list[ImageOutcome], last: int, others: int, *, done: bool
    ) -> tuple[PartTables, int]:
        """Return a part's tables and the others so far, and move the cursor behind it."""
        before = self._cursor
        tables = part_tables(part, first_position=before.counts.images, dimensions=self._dimensions)
        offset, held, others_now = pairs.cursor_after(last)
        counts = before.counts + tables.counts + ShardCounts(others=others_now - others)
        self._cursor = ShardCursor(part=before.part + 1, offset=offset, held=held, done=done, counts=counts)
        return tables, others_now

    def _outcome(self, pair: TarPair) -> ImageOutcome:
        if pair.number in self._claim.poisoned:
            message = (
                "Workers ended while they scored this image, the last time alone, so it probably kills them: look at "
                "it and at its masks, and at the logs of the workers. It was left out."
            )
            return self._failed(pair, JobError(FailureCode.POISONED, message))
        try:
            return self._scored(pair)
        except JobError as error:
            # What `check` raises stops the shard, and is no image's failure.
            self._check()
            if error.input_may_be_fine:
                raise
            return self._failed(pair, error)
        except (DeviceBroken, OSError, MemoryError):
            raise
        except Exception as error:
            # What stops the shard is raised by `check`; all else is this image's, and the next one may be fine.
            self._check()
            log.exception("image %d of shard %s failed", pair.number, self._shard.shard_id)
            message = f"Scoring failed: {type(error).__name__}: {error}. The worker's log has the details."
            return self._failed(pair, JobError(FailureCode.INTERNAL_ERROR, message))

    def _scored(self, pair: TarPair) -> ImageOutcome:
        shard, settings = self._shard, self._pipeline.settings
        if pair.damage is not None:
            raise JobError(FailureCode.IMAGE_TRUNCATED, f"{self._source.uri}: {pair.damage.message}")
        if pair.image is None or pair.masks is None:
            found = pair.image or pair.masks
            assert found is not None
            code, what = (
                (FailureCode.MASKS_NOT_FOUND, "masks file")
                if pair.image is not None
                else (FailureCode.IMAGE_NOT_FOUND, "image")
            )
            raise JobError(code, f"{self._source.uri} has no {what} for {found.name!r}.")
        image = _bytes_of(pair.image, settings.max_image_bytes, FailureCode.IMAGE_TOO_LARGE, "IMAGE")
        masks = _bytes_of(pair.masks, settings.max_masks_bytes, FailureCode.MASKS_TOO_LARGE, "MASKS")
        job = Job(
            job_id=shard.shard_id,
            batch_id=shard.batch_id,
            image=ImageRef(uri=self._uri(pair.image), orientation=shard.orientation),
            masks=MasksRef(uri=self._uri(pair.masks), format=shard.masks_format),
            options=shard.options,
        )
        fetched = Fetched(FetchedObject(image, self._etag or None, None), masks)
        result, read = self._pipeline.score_fetched(job, fetched, self._claim, self._check, StageTimer())
        assert result.image is not None
        coco = CocoSegmentation(read, height=result.image.height, width=result.image.width, checked=False)
        segmentations = [
            coco.segmentation(component) if component.box is not None else None for component in result.components
        ]
        return self._of(pair, result, segmentations)

    def _failed(self, pair: TarPair, error: JobError) -> ImageOutcome:
        failure = Failure(code=error.code, message=error.message)
        shard = self._shard
        result = JobResult(job_id=shard.shard_id, batch_id=shard.batch_id, state=JobState.FAILED, error=failure)
        return self._of(pair, result, [])

    def _of(self, pair: TarPair, result: JobResult, segmentations: list[object]) -> ImageOutcome:
        return ImageOutcome(
            result,
            None if pair.image is None else self._uri(pair.image),
            None if pair.masks is None else self._uri(pair.masks),
            segmentations,
            self._etag or None,
            None if pair.image is None else pair.image.offset,
            None if pair.image is None else pair.image.size,
        )

    def _uri(self, member: Member) -> str:
        # Names that are not UTF-8 cannot stand in a document.
        name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").removeprefix("./")
        return f"{self._source.uri}!/{quote(name) if self._source.uri.startswith('file:') else name}"


def _bytes_of(member: Member, most: int, code: FailureCode, setting: str) -> bytes:
    if member.data is None or member.size > most:
        raise JobError(
            code,
            f"{member.name!r} has {member.size:,} bytes; at most {most:,} are read (MASKSCORE_MAX_{setting}_BYTES).",
        )
    return member.data
