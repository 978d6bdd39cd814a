"""Runs a dataset as shards through the service: as one batch, followed to a summary; can be resumed.

The class of a run stands beside what is checked before it, so it is longer than other modules.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from maskscore import results
from maskscore.client import Client, save_categories_of_parts
from maskscore.dataset.dataset_shards import OpenShards, open_shards, shards_identity
from maskscore.dataset.image_retries import failed_images
from maskscore.dataset.open_dataset import Dataset
from maskscore.dataset.pair_list_shards import PAIRS_PER_LIST
from maskscore.dataset.redis_outage import RedisOutage
from maskscore.dataset.replaced_tars import ReplacedTars, scores_again
from maskscore.dataset.run_note import RUN_NOTE, RunNote, check_batch
from maskscore.dataset.run_options import RunOptions, default_batch_id
from maskscore.dataset.shard_run_summary import (
    ShardProgressCounts,
    ShardRunSummary,
    image_failures,
    images_scored_again,
    progress_of,
)
from maskscore.dataset.tar_files import is_tar
from maskscore.errors import InvalidDocumentError, JobConflict, JobNotFound, QueueFull, ServiceUnavailable
from maskscore.ledger import JobStatus
from maskscore.schema import Shard, ShardCounts, ShardOutcome
from maskscore.storage import Objects, output_errors, path_of
from maskscore.text import counted

__all__ = ["make_output_folder", "run_shards"]

_LOOK_EVERY_S: Final = 0.5
_PART: Final = re.compile(r"(.+)-\d{5,}\.parquet")


def run_shards(
    client: Client,
    dataset: Dataset | str,
    output_uri: str,
    run_options: RunOptions | None = None,
    *,
    batch_id: str | None = None,
    pairs_per_list: int = PAIRS_PER_LIST,
    limit: int | None = None,
    resume: bool = False,
    retry: bool = False,
    follow: bool = True,
    stopped: Callable[[], bool] = lambda: False,
    noted: Callable[[str], None] = lambda sentence: None,
    seen: Callable[[int], None] | None = None,
    shown: Callable[[ShardProgressCounts], None] = lambda progress: None,
) -> ShardRunSummary:
    """Score a dataset as shards of one batch, into parts below ``output_uri``, and return the summary.

    A local output, ``file:///folder/``, is made here where it is not there; workers must have the same folder.

    Parameters: as those of :func:`run_dataset` and of :func:`maskscore.dataset.shards`; ``noted`` is called with the
    batch's id, before the listing, and with what else is worth a line. A batch that is resumed keeps its options; tar
    files and pairs that were added are submitted. With ``retry``, shards that ended without a result go on after their
    last part, and images that failed in shards that have succeeded are scored again, as further shards, for which
    pyarrow is needed; those of a tar that was replaced since, from the present one.

    Raises :class:`~maskscore.errors.InvalidDocumentError` as :func:`maskscore.dataset.shards` does, where the batch
    exists and may not be resumed so, and where the output has parts of other shards by the same names.
    """
    dataset = Dataset(dataset) if isinstance(dataset, str) else dataset
    run_options = run_options or RunOptions()
    fingerprint = run_options.fingerprint(shards_identity(dataset, output_uri, client.objects))
    batch_id = batch_id or default_batch_id(fingerprint)
    note = check_batch(client, batch_id, fingerprint, resume=resume)
    if note is not None and (changes := note.changes(fingerprint)):
        raise InvalidDocumentError(
            f"The batch {batch_id} was begun with other options: {'; '.join(changes)}. All parts of a run have the "
            "same ones: give them again, or another --batch-id and output."
        )
    make_output_folder(output_uri)
    noted(f"batch {batch_id}")
    # Shards of tar files are known by their names, but for those of their failed images.
    of_names = is_tar(dataset.images) and not run_options.upload
    known = [] if note is None else _known(client, batch_id, of_names=of_names)
    with open_shards(
        dataset,
        output_uri,
        client.objects,
        run_options,
        batch_id=batch_id,
        pairs_per_list=pairs_per_list,
        known=known,
        limit=limit,
        seen=seen,
    ) as opened:
        if note is None and (others := _check_output(client.objects, output_uri, opened.names)):
            noted(f"{output_uri} has parts of {counted(others, 'shard')} of other runs: queries over it read them, too")
        save_categories_of_parts(client.objects, output_uri, opened.categories)
        run = _ShardRun(client, batch_id, fingerprint, known, retry, stopped, shown)
        run.submit(opened.shards)
        if retry:
            run.retry_images(opened, noted)
        if follow:
            run.follow()
        return run.summary(output_uri, opened)


def make_output_folder(output_uri: str) -> None:
    """Make the folder of a local output; workers do not, for which one that is not there is on another machine.

    Raises :class:`~maskscore.errors.OutputError`.
    """
    if output_uri.startswith("file:"):
        with output_errors(output_uri):
            path_of(output_uri).mkdir(parents=True, exist_ok=True)


class _ShardRun:
    def __init__(
        self,
        client: Client,
        batch_id: str,
        fingerprint: str,
        known: Iterable[Shard],
        retry: bool,
        stopped: Callable[[], bool],
        shown: Callable[[ShardProgressCounts], None],
    ) -> None:
        self._client, self._batch_id, self._fingerprint, self._retry = client, batch_id, fingerprint, retry
        self._stopped, self._shown = stopped, shown
        self._tars = ReplacedTars(client, batch_id, known, retry=retry)
        self._shards: dict[str, Shard] = {}
        self._statuses: list[JobStatus] = []
        self._outage = RedisOutage()
        self._started = time.monotonic()
        self._complete = False
        self._trouble: str | None = None

    def submit(self, shards: Iterable[Shard]) -> None:
        """Submit the shards as they come."""
        looked = 0.0
        for shard in shards:
            if self._stopped():
                break
            self._submit(shard)
            if time.monotonic() - looked > _LOOK_EVERY_S:
                self._look()
                looked = time.monotonic()
        else:
            self._complete = True
        self._look()

    def _submit(self, shard: Shard) -> None:
        while not self._stopped():
            try:
                accepted = self._accepted(shard)
            except ServiceUnavailable as error:
                self._failed(error)
            except QueueFull as full:
                self._trouble = f"waiting for room in the queue: {full}"
                self._look()
            else:
                self._trouble = None
                self._outage.answered()
                if accepted is not None:
                    self._shards[accepted.shard_id] = accepted
                return
            time.sleep(_LOOK_EVERY_S)

    def _accepted(self, shard: Shard) -> Shard | None:
        """Submit a shard; return the one that the batch has by its id now, or ``None`` where it is not to count."""
        if self._tars.is_outdated(shard):
            return None
        try:
            self._client.submit_many([shard], batch_id=self._batch_id, retry_failed=self._retry)
        except JobConflict:
            return self._tars.scored_before(shard)
        if not self._shards:
            self._client.batch(self._batch_id).set_note(RUN_NOTE, RunNote(self._fingerprint).text())
        return shard

    def retry_images(self, opened: OpenShards, noted: Callable[[str], None]) -> None:
        """Submit the images that failed in shards that have succeeded, as further shards.

        Raises :class:`~maskscore.errors.InvalidDocumentError` for a tar that was replaced, and has none of them.
        """
        ended = list(self._outcomes())
        if not any(outcome.counts.failed for _, outcome in ended) or self._stopped():
            return
        retries = list(filter(scores_again, self._shards.values()))
        if {shard.shard_id for shard in retries} - {shard.shard_id for shard, _ in ended}:
            # Which images have failed is known when these have ended.
            noted("images that failed are being scored again already")
            return
        images = failed_images([outcome for _, outcome in ended])
        failed = [(shard, images[shard.shard_id]) for shard, _ in ended if shard.shard_id in images]
        self._tars.check_needed({shard.source.uri for shard, _ in failed})
        named = sum(image.image is not None or image.masks is not None for _, own in failed for image in own)
        if damage := sum(len(own) for _, own in failed) - named:
            noted(
                f"{counted(damage, 'damaged place')} of tar files {'is' if damage == 1 else 'are'} left, because what "
                "was there has no name. Score a tar that is whole now under another --batch-id and output"
            )
        if not named:
            return
        noted(f"{counted(named, 'image')} that failed {'is' if named == 1 else 'are'} scored again")
        self.submit(opened.retried(failed, [shard.name for shard in retries], noted))

    def _outcomes(self) -> Iterator[tuple[Shard, ShardOutcome]]:
        """Yield the shards that have succeeded, with what their parts hold."""
        for shard, status in zip(list(self._shards.values()), self._statuses, strict=False):
            if status.error is None and status.state.ended:
                outcome = self._client.get(shard.shard_id).shard
                if outcome is not None:
                    yield shard, outcome

    def follow(self) -> None:
        """Wait until all have ended."""
        while not self._stopped() and not (self._statuses and all(status.state.ended for status in self._statuses)):
            time.sleep(_LOOK_EVERY_S)
            self._look()

    def _look(self) -> None:
        try:
            self._statuses = self._client.statuses(self._shards)
        except ServiceUnavailable as error:
            self._failed(error)
        else:
            self._outage.answered()
            self._shown(progress_of(self._statuses, self._complete, self._trouble))

    def _failed(self, error: ServiceUnavailable) -> None:
        self._outage.failed(error)
        self._shown(progress_of(self._statuses, self._complete, str(error)))

    def summary(self, output_uri: str, opened: OpenShards) -> ShardRunSummary:
        """Return what has become of the shards."""
        counts, failures, with_failures = ShardCounts(), {}, []
        for shard, status in zip(self._shards.values(), self._statuses, strict=False):
            if status.error is not None:
                failures[shard.source.uri] = status.error
        for shard, outcome in self._outcomes():
            counts += outcome.counts
            if outcome.counts.failed or results.retry_number(shard.name) is not None:
                with_failures.append(outcome)
        progress = progress_of(self._statuses, self._complete)
        if again := images_scored_again(with_failures):
            # An image that was scored again is one image, and what came of it last counts.
            counts = counts.model_copy(update={"images": counts.images - again, "failed": counts.failed - again})
            progress = replace(progress, images=progress.images - again)
        return ShardRunSummary(
            self._batch_id,
            output_uri,
            states=dict(Counter(str(status.state) for status in self._statuses)),
            progress=progress,
            counts=counts,
            seconds=time.monotonic() - self._started,
            failures=failures,
            image_failures=image_failures(with_failures) if with_failures else {},
            pairing_counts=opened.pairing_counts,
            refused=opened.refused,
            left_out=opened.left_out,
        )


def _known(client: Client, batch_id: str, *, of_names: bool) -> list[Shard]:
    """Return the shards of a batch; where they are known by their names, those that score images again."""
    shards = []
    for job_id in client.batch(batch_id).job_ids():
        try:
            shards.append(client.shard(job_id))
        except JobNotFound as error:
            if of_names:
                continue
            raise InvalidDocumentError(
                f"The batch {batch_id} cannot be resumed: a shard's record is gone (MASKSCORE_RESULT_TTL_S), so it is "
                "not known which images it has. Its parts stay. Score what is missing under another --batch-id and "
                "output."
            ) from error
    return list(filter(scores_again, shards)) if of_names else shards


def _check_output(objects: Objects, output_uri: str, names: re.Pattern[str]) -> int:
    """Return of how many other shards the output has parts.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where it has some by these names: workers replace no other
    shard's.
    """
    others = set()
    if output_uri.startswith("file:"):
        there = [path.name for path in (path_of(output_uri) / "images").glob("*.parquet")]
    else:
        there = [entry.name for entry in objects.list(f"{output_uri}images/")]
    for name in there:
        part = _PART.fullmatch(name)
        if part is not None and names.fullmatch(part[1]):
            raise InvalidDocumentError(
                f"{output_uri}images/{name} is a part of another run. Choose another output, or go on with that "
                "run: --resume, with its --batch-id."
            )
        if part is not None:
            others.add(part[1])
    return len(others)
