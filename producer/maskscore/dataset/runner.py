"""Runs a dataset through the service: submits jobs and reads results at the same time; can be stopped and resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from maskscore.client import PAGE, Client
from maskscore.dataset.job_maker import JobMaker
from maskscore.dataset.open_dataset import Dataset
from maskscore.dataset.pairing import Pairing
from maskscore.dataset.redis_outage import RedisOutage
from maskscore.dataset.result_collector import ResultCollector
from maskscore.dataset.run_note import RunNote, check_batch
from maskscore.dataset.run_options import RunOptions, default_batch_id
from maskscore.dataset.run_progress import JobRate, RunProgress
from maskscore.dataset.run_summary import RunSummary
from maskscore.dataset.submission import Submission
from maskscore.errors import BatchNotFound, FailureCode, JobNotFound, ResultUnavailable, ServiceUnavailable
from maskscore.ledger import BatchCounts
from maskscore.schema import JobState

__all__ = ["run_dataset"]

_LOOK_EVERY_S = 0.5
_FIRST_JOBS = 20


class Run:
    """Submits a pairing's jobs as one batch, and reads their results as they end.

    Parameters
    ----------
    client: the client of the service.
    pairing: the images with their masks.
    maker: builds their jobs; its ``batch_id`` is the batch's.
    fingerprint: the dataset and options as JSON, stored with the batch. A resumed run with another fingerprint keeps
        what was scored and applies the new options to everything else.
    resume: continue an existing batch; without it, an existing batch is refused.
    retry: with ``resume``: submit jobs without a result again.

    All state is stored in Redis with the batch, so a killed run can be resumed like a stopped one. Where the first jobs
    all fail with a code whose cause is common to every job, the run stops and cancels the rest. Raises as
    :func:`check_batch` does.
    """

    def __init__(
        self,
        client: Client,
        pairing: Pairing,
        maker: JobMaker,
        *,
        fingerprint: str = "",
        resume: bool = False,
        retry: bool = False,
    ) -> None:
        self._client, self._pairing = client, pairing
        self._batch = client.batch(maker.batch_id)
        self._model = maker.run_options.options.model
        begun = check_batch(client, maker.batch_id, fingerprint, resume=resume)
        changed = begun is not None and bool(begun.changes(fingerprint))
        corrected = begun is not None and (changed or begun.corrected)
        self._collection = ResultCollector(client, maker.batch_id)
        without_scores: set[str] = set()
        if begun is not None and (corrected or retry):
            without_scores = self._release_unfinished(waiting=changed, without_scores=corrected)
        elif begun is not None:
            pairing.add_submitted(self._batch.job_ids())
        self._submission = Submission(
            client,
            pairing,
            maker,
            note=RunNote(fingerprint, corrected),
            anew=corrected or retry,
            without_scores=without_scores,
        )
        self._count_anew = begun is not None and (corrected or retry)
        self._before = self._collection.result_counts.model_copy(deep=True)
        self._stopped_by: str | None = None
        self._started = time.monotonic()
        self._rate = JobRate(self._counts().ended)

    def go(
        self,
        *,
        follow: bool = True,
        stopped: Callable[[], bool] = lambda: False,
        shown: Callable[[RunProgress], None] = lambda progress: None,
    ) -> RunSummary:
        """Run to the end, or until ``stopped`` says so, and return the summary.

        Without ``follow`` the end is when all jobs are submitted. ``shown`` is called about twice per second.
        """
        self._submission.start()
        try:
            complete = self._follow(stopped, shown) if follow else self._submit_only(stopped, shown)
            self._submission.stop()
            if self._stopped_by:
                self._cancel_rest()
            if complete and follow:
                self._recount()
            return self._summary(complete=complete and follow)
        finally:
            self._submission.stop()
            self._collection.close()

    def _release_unfinished(self, *, waiting: bool, without_scores: bool) -> set[str]:
        """Let what ended without a result be submitted anew, as it is made now.

        With ``waiting``, jobs that wait are cancelled, and submitted anew as well. With ``without_scores``, so are
        those that succeeded although no mask of theirs was scored; their ids are returned.
        """
        found: set[str] = set()
        before = self._collection.skip_to_end()
        look = without_scores and before.no_mask_scored.count > 0
        ids = self._batch.job_ids()
        while page := list(islice(ids, PAGE)):
            kept, cancelled = [], []
            for job_id, status in zip(page, self._client._find_statuses(page), strict=True):
                state = None if status is None else status.state
                if state is JobState.SUCCEEDED and look and self._scored_nothing(job_id):
                    found.add(job_id)
                elif state is JobState.QUEUED and waiting:
                    cancelled.append(job_id)
                elif state not in (JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED):
                    kept.append(job_id)
            self._client.cancel_many(cancelled)
            self._pairing.add_submitted(iter(kept))
        return found

    def _scored_nothing(self, job_id: str) -> bool:
        try:
            return self._client.get(job_id).no_mask_scored
        except (ResultUnavailable, JobNotFound):
            return False

    def _follow(self, stopped: Callable[[], bool], shown: Callable[[RunProgress], None]) -> bool:
        looked = 0.0
        outage, counts = RedisOutage(), BatchCounts()
        while not stopped():
            submitting = self._submission.running
            try:
                endings = self._collection.step(_LOOK_EVERY_S)
                now = time.monotonic()
                if endings and now - looked < _LOOK_EVERY_S:
                    continue
                looked, counts = now, self._counts()
            except ServiceUnavailable as error:
                outage.failed(error)
                shown(replace(self._progress(counts), trouble=str(error)))
                time.sleep(_LOOK_EVERY_S)
                continue
            outage.answered()
            shown(self._progress(counts))
            if self._all_failed():
                return False
            if not endings and not submitting and counts.ended == counts.total:
                return True
        return False

    def _submit_only(self, stopped: Callable[[], bool], shown: Callable[[RunProgress], None]) -> bool:
        while self._submission.running:
            if stopped():
                return False
            self._submission.join(_LOOK_EVERY_S)
            with suppress(ServiceUnavailable):  # the submission retries and raises
                shown(self._progress(self._counts()))
                if self._collection.result_counts.jobs - self._before.jobs < _FIRST_JOBS:
                    self._collection.step(0.0)
                if self._all_failed():
                    return False
        return True

    def _all_failed(self) -> bool:
        """Say whether the first jobs of this run have all failed for one cause that concerns every job."""
        result_counts, before = self._collection.result_counts, self._before
        failed = {code: each.count - before.count_of(code) for code, each in result_counts.failures.items()}
        ended = result_counts.jobs - before.jobs - failed.pop(FailureCode.CANCELLED, 0)
        for code in FailureCode:
            if failed.get(code) == ended >= _FIRST_JOBS and code.about.stops_run != "no":
                self._stopped_by = code
        return self._stopped_by is not None

    def _cancel_rest(self) -> None:
        """Cancel what has not ended, and count it: whoever goes on queues it again."""
        self._batch.cancel()
        while self._collection.step(0.0):
            pass

    def _recount(self) -> None:
        """Count all results again where the counts disagree with the batch: a job may have ended a second time."""
        if self._count_anew or self._collection.result_counts.jobs != self._counts().total:
            self._collection.reset()
            while self._collection.step(0.0):
                pass

    def _counts(self) -> BatchCounts:
        try:
            return self._batch.counts()
        except BatchNotFound:
            return BatchCounts()

    def _progress(self, counts: BatchCounts) -> RunProgress:
        total = max(len(self._pairing), counts.total)
        per_s = self._rate.per_s(counts.ended)
        left_s = (total - counts.ended) / per_s if per_s > 0 else None
        result_counts = self._collection.result_counts
        most_failed = max(result_counts.failures, key=lambda code: result_counts.failures[code].count, default=None)
        no_worker = None
        if counts.queued and not counts.running and not per_s:
            no_worker = self._client.no_worker(self._model)
        return RunProgress(
            total,
            self._submission.progress,
            counts,
            result_counts.masks,
            per_s,
            left_s,
            most_failed,
            no_worker=no_worker,
        )

    def _summary(self, *, complete: bool) -> RunSummary:
        counts = self._counts()
        seconds = time.monotonic() - self._started
        return RunSummary(
            batch_id=self._batch.batch_id,
            pairing_counts=self._pairing.counts,
            images=len(self._pairing),
            submitted=self._submission.progress,
            counts=counts,
            result_counts=self._collection.result_counts,
            seconds=seconds,
            jobs_per_s=(counts.ended - self._rate.first) / seconds if seconds else 0.0,
            complete=complete,
            stopped_by=self._stopped_by,
        )


def run_dataset(
    client: Client,
    dataset: Dataset,
    run_options: RunOptions | None = None,
    *,
    batch_id: str | None = None,
    limit: int | None = None,
    resume: bool = False,
    retry: bool = False,
    follow: bool = True,
    stopped: Callable[[], bool] = lambda: False,
    changed: Callable[[list[str]], None] = lambda changes: None,
    seen: Callable[[int], None] | None = None,
    shown: Callable[[RunProgress], None] = lambda progress: None,
) -> RunSummary:
    """Score a dataset, as one batch, and return the summary.

    Parameters
    ----------
    client: the client of the service.
    dataset, run_options: what is scored, and how.
    batch_id: the batch's id; derived from ``dataset`` and ``run_options`` where it is not given.
    limit: score this many images at most.
    resume: continue the batch if it exists; with ``retry``, jobs without a result run again. Where
        ``dataset.format``, ``dataset.masks`` or ``run_options`` differ from before, what was scored stays as it is,
        and the new options apply to everything else.
    follow: wait for the results; without it, return when everything is submitted.
    stopped: called about twice per second; where it returns true, the run stops, and submitted jobs go on.
    changed: called with the options that differ from before, each as ``name: before → now``.
    seen, shown: called with the number of listed files, and with the progress after the listing.

    Memory does not grow with the number of images: the listing is a temporary file of some 200 bytes per image.
    Raises :class:`~maskscore.errors.InvalidDocumentError` where no image with masks is found, or the batch exists and
    may not be resumed; :class:`~maskscore.errors.JobError` where a store cannot be listed.
    """
    run_options = run_options or RunOptions()
    fingerprint = run_options.fingerprint(dataset.identity(client.objects))
    batch_id = batch_id or default_batch_id(fingerprint)
    # Before the listing, which may take its time.
    begun = check_batch(client, batch_id, fingerprint, resume=resume)
    if begun is not None and (changes := begun.changes(fingerprint)):
        changed(changes)
    with dataset.opened(client.objects, limit=limit, seen=seen) as opened:
        maker = JobMaker(
            images=opened.images,
            masks=opened.masks,
            objects=client.objects,
            batch_id=batch_id,
            run_options=run_options,
            format=dataset.format,
        )
        run = Run(client, opened.pairing, maker, fingerprint=fingerprint, resume=resume, retry=retry)
        return run.go(follow=follow, stopped=stopped, shown=shown)
