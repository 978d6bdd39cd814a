"""Reads the results of a batch once each as they arrive, and counts them across runs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from pydantic import ValidationError

from maskscore.client import COMMIT_EVERY_S, Client, Ending
from maskscore.dataset.result_counts import ResultCounts
from maskscore.errors import JobNotFound, ResultUnavailable, ServiceUnavailable
from maskscore.schema import JobResult

__all__ = ["ResultCollector"]

_READERS = 8
_PAGE = 100
_NOTE = "run-tally"


class ResultCollector:
    """The tally of a batch, and how far it has come in the batch's events.

    Both are stored with the batch in one write, so that a crash neither loses nor doubles a count. Call :meth:`step`
    repeatedly, in one thread.
    """

    def __init__(self, client: Client, batch_id: str) -> None:
        self._client = client
        self._batch = client.batch(batch_id)
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="results")
        self.result_counts = _kept(self._batch.note(_NOTE))
        self._committed = self.result_counts.position
        self._last = time.monotonic()

    def close(self) -> None:
        """Store the counts, and stop the threads."""
        self._pool.shutdown(cancel_futures=True)
        # What could not be stored is counted again by the next run.
        with suppress(ServiceUnavailable):
            self._commit()

    def step(self, wait_s: float) -> int:
        """Count the next results, up to a hundred; return how many endings there were.

        Waits up to ``wait_s`` seconds for one where there is none.
        """
        endings = self._batch.endings(after=self.result_counts.position, limit=_PAGE, wait_s=wait_s)
        # A thread for each is worth it only where objects are read.
        reads = any(ending.record and ending.record.result_uri for ending in endings)
        for ending, result in zip(endings, (self._pool.map if reads else map)(self._loaded, endings), strict=True):
            if isinstance(result, JobResult):
                self.result_counts.add(result, lambda job_id=ending.event.job_id: self._image_of(job_id))  # type: ignore[misc]
            elif result is not None:
                self.result_counts.add_unread(ending.event.job_id, str(result))
            self.result_counts.position = ending.event.event_id
        if time.monotonic() - self._last > COMMIT_EVERY_S:
            self._commit()
        return len(endings)

    def reset(self) -> None:
        """Discard the counts, since jobs that were counted have been queued again."""
        self.result_counts = ResultCounts()

    def skip_to_end(self) -> ResultCounts:
        """Skip the results until now, since their jobs will be queued again.

        Returns the counts of what has ended before.
        """
        while self.step(0.0):
            pass
        before, self.result_counts = self.result_counts, ResultCounts(position=self.result_counts.position)
        return before

    def _loaded(self, ending: Ending) -> JobResult | ResultUnavailable | None:
        try:
            return self._batch.result_of(ending)
        except ResultUnavailable as error:
            return error

    def _image_of(self, job_id: str) -> str:
        try:
            return self._client.job(job_id).image.uri
        except JobNotFound:
            return job_id

    def _commit(self) -> None:
        self._last = time.monotonic()
        if self.result_counts.position != self._committed:
            self._batch.set_note(_NOTE, self.result_counts.model_dump_json())
            self._committed = self.result_counts.position


def _kept(note: str | None) -> ResultCounts:
    try:
        return ResultCounts() if note is None else ResultCounts.model_validate_json(note)
    except ValidationError:  # of another release: everything is counted again
        return ResultCounts()
