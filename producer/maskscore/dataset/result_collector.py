"""Reading the results of a batch as they come, once each, and counting them; also over several runs."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from pydantic import ValidationError

from maskscore.client import COMMIT_EVERY_S, Client, Ending
from maskscore.dataset.result_counts import Tally
from maskscore.errors import JobNotFound, ResultUnavailable, ServiceUnavailable
from maskscore.schema import JobResult

__all__ = ["Collection"]

_READERS = 8
_PAGE = 100
_NOTE = "run-tally"


class Collection:
    """The tally of a batch, and how far it has come in the batch's events.

    Both are kept with the batch, in one write: after a crash, what was counted since the last write is read again, and
    nothing twice. Call :meth:`step` again and again; use it in one thread.
    """

    def __init__(self, client: Client, batch_id: str) -> None:
        self._client = client
        self._batch = client.batch(batch_id)
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="results")
        self.tally = _kept(self._batch.note(_NOTE))
        self._committed = self.tally.position
        self._last = time.monotonic()

    def close(self) -> None:
        """Keep what was counted, and end the threads."""
        self._pool.shutdown(cancel_futures=True)
        # What could not be kept is counted again by the next run.
        with suppress(ServiceUnavailable):
            self._commit()

    def step(self, wait_s: float) -> int:
        """Count the next results, up to a hundred; return how many endings there were.

        Waits up to ``wait_s`` seconds for one where there is none.
        """
        endings = self._batch.endings(after=self.tally.position, limit=_PAGE, wait_s=wait_s)
        # A thread for each is worth it only where objects are read.
        reads = any(ending.record and ending.record.result_uri for ending in endings)
        for ending, result in zip(endings, (self._pool.map if reads else map)(self._loaded, endings), strict=True):
            if isinstance(result, JobResult):
                self.tally.add(result, lambda job_id=ending.event.job_id: self._image_of(job_id))  # type: ignore[misc]
            elif result is not None:
                self.tally.add_unread(ending.event.job_id, str(result))
            self.tally.position = ending.event.event_id
        if time.monotonic() - self._last > COMMIT_EVERY_S:
            self._commit()
        return len(endings)

    def begin_anew(self) -> None:
        """Forget what was counted: jobs were queued again whose first end is counted already."""
        self.tally = Tally()

    def begin_here(self) -> Tally:
        """Count nothing but what ends from now on: jobs will be queued again whose first end is there already.

        Returns the tally of what has ended before.
        """
        while self.step(0.0):
            pass
        before, self.tally = self.tally, Tally(position=self.tally.position)
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
        if self.tally.position != self._committed:
            self._batch.set_note(_NOTE, self.tally.model_dump_json())
            self._committed = self.tally.position


def _kept(note: str | None) -> Tally:
    try:
        return Tally() if note is None else Tally.model_validate_json(note)
    except ValidationError:  # of another release: everything is counted again
        return Tally()
