"""Submits the jobs of a dataset in a thread, while the main thread reads results."""

from __future__ import annotations

import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from maskscore.client import Client, save_categories, with_content_id
from maskscore.dataset.job_maker import JobMaker, MadeJob
from maskscore.dataset.pairing import Pair, Pairing
from maskscore.dataset.redis_outage import RedisOutage
from maskscore.dataset.result_counts import FailureCounts
from maskscore.dataset.run_note import RUN_NOTE, RunNote
from maskscore.errors import (
    InvalidDocumentError,
    JobConflict,
    MaskscoreError,
    PayloadTooLarge,
    QueueFull,
    ServiceUnavailable,
)
from maskscore.schema import Job

__all__ = ["Submission", "Submitted"]

_CHUNK = 200
# Jobs with inline masks are large: a smaller chunk bounds the memory.
_INLINE_CHUNK = 50
_READERS = 8
_ROOM_S = 0.5
_AGAIN_S = 1.0


@dataclass(slots=True)
class Submitted:
    """Counts of a submission, in images.

    ``seen`` were taken from the pairing, ``new`` submitted, ``known`` submitted by an earlier run; ``refused`` could
    not be submitted, by error code. ``left_out`` counts masks that cannot be read, of files that are read by the client
    and not by a worker. ``waiting_for_room``: what is full, and what to do.
    """

    seen: int = 0
    new: int = 0
    known: int = 0
    refused: dict[str, FailureCounts] = field(default_factory=dict)
    left_out: FailureCounts = field(default_factory=FailureCounts)
    waiting_for_room: str | None = None

    @property
    def refused_count(self) -> int:
        """How many images could not be submitted."""
        return sum(failures.count for failures in self.refused.values())


class Submission:
    """Submits the jobs of a pairing, a few hundred per round trip, until all are submitted or it is stopped.

    Parameters
    ----------
    client: the client; it may be shared with the thread that reads results.
    pairing, maker: the source of the jobs. While the thread runs, no other thread may use the pairing.
    note: stored with the batch after the first jobs.
    anew: submit jobs that ended without a result again, with their present document.
    without_scores: ids of jobs that succeeded without one scored mask; with another document they run again, too.
    """

    def __init__(
        self,
        client: Client,
        pairing: Pairing,
        maker: JobMaker,
        *,
        note: RunNote,
        anew: bool = False,
        without_scores: Collection[str] = (),
    ) -> None:
        self._client, self._pairing, self._maker = client, pairing, maker
        self._anew, self._without_scores = anew, without_scores
        self._content_id, self._note = maker.run_options.content_id, note
        self._stop = threading.Event()
        self._outage = RedisOutage()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="submission", daemon=True)
        self.progress = Submitted()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread runs. Raises the error that has ended it, if there was one."""
        alive = self._thread.is_alive()
        if not alive and self._error is not None:
            raise self._error
        return alive

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stop after the current chunk, and wait for the thread. Submitted jobs go on."""
        self._stop.set()
        self._thread.join(timeout_s)

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread, at most this many seconds."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            with ThreadPoolExecutor(_READERS, thread_name_prefix="masks") as pool:
                self._submit_all(pool)
        except BaseException as error:  # raised again by `running`
            self._error = error

    def _submit_all(self, pool: ThreadPoolExecutor) -> None:
        pairs = iter(self._pairing)
        size = _INLINE_CHUNK if isinstance(self._maker.masks, Path) else _CHUNK
        while not self._stop.is_set() and (chunk := list(islice(pairs, size))):
            missing = self._missing(chunk)
            jobs = []
            # Threads help only where making a job reads or writes files.
            reads = any(map(self._maker.reads, missing))
            for pair, made in zip(missing, (pool.map if reads else map)(self._made, missing), strict=True):
                if isinstance(made, MadeJob):
                    jobs.append(made.job)
                    for reason in made.left_out:
                        self.progress.left_out.add(lambda image=pair.image: image, reason)  # type: ignore[misc]
                elif made is not None:
                    self._refuse(pair.image, made)
            self._submit(jobs)
            if self._stop.is_set():
                return
            self.progress.known += len(chunk) - len(missing)
            self.progress.seen += len(chunk)

    def _missing(self, chunk: list[Pair]) -> list[Pair]:
        if self._content_id:
            return chunk
        ids = [self._maker.job_id(pair) for pair in chunk]
        known = self._pairing.submitted(ids)
        return [pair for pair, job_id in zip(chunk, ids, strict=True) if job_id not in known]

    def _made(self, pair: Pair) -> MadeJob | MaskscoreError | None:
        if self._stop.is_set():
            return None
        made = self._maker.make_or_refuse(pair)
        if self._content_id and isinstance(made, MadeJob):
            made = MadeJob(with_content_id(made.job, self._client.objects), made.left_out)
        return made

    def _submit(self, jobs: list[Job]) -> None:
        while jobs and not self._stop.is_set():
            try:
                batch = self._client.batch(self._maker.batch_id)
                self._client._submit(jobs, batch.batch_id, self._anew, self._without_scores)
                if not self.progress.new:
                    batch.set_note(RUN_NOTE, self._note.text())
                    if isinstance(self._maker.masks, Path):
                        save_categories(batch, self._pairing.categories())
            except ServiceUnavailable as error:
                self._outage.failed(error)
                self._stop.wait(_AGAIN_S)
                continue
            except QueueFull as full:
                self.progress.waiting_for_room = str(full)
                self._stop.wait(_ROOM_S)
                continue
            except PayloadTooLarge as error:
                if len(jobs) == 1:
                    self._refuse(jobs[0].image.uri, error)
                    return
                for job in jobs:
                    self._submit([job])
                return
            except JobConflict as error:
                raise InvalidDocumentError(
                    f"Of the batch {self._maker.batch_id}, an image was submitted before with other options or masks. "
                    f"Give the same ones, or another --batch-id. ({error})"
                ) from error
            self._outage.answered()
            self.progress.waiting_for_room = None
            self.progress.new += len(jobs)
            return

    def _refuse(self, image: str, error: MaskscoreError) -> None:
        self.progress.refused.setdefault(error.code, FailureCounts()).add(lambda: image, str(error))
