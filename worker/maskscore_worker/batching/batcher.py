"""Batches that are filled across jobs: crops of many callers → full batches → each caller's features."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from maskscore.errors import FailureCode, JobError
from maskscore_worker.batching.memory_limit import Crops, Features, MemoryLimitedEncoder, joined
from maskscore_worker.batching.requests import Request, Share
from maskscore_worker.model import DeviceBroken

__all__ = ["BatchSource", "Batcher", "BatcherStats"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatcherStats:
    """Counts of what the device has encoded and of what waits for it.

    ``batches`` and ``crops`` count what was encoded, ``fill`` is the mean share of a batch's places that was used
    (0 to 1). ``encoding_crops`` are on the device now; ``last_progress`` is :func:`time.monotonic` of the last time
    that a batch ended, successful or not; of several busy threads, the one for which that is the longest ago counts.
    ``max_batch`` is the present limit: lower than the given one after the device ran out of memory.
    """

    batches: int
    crops: int
    fill: float
    waiting_crops: int
    encoding_crops: int
    max_batch: int
    last_progress: float


class BatchSource:
    """The crops of one job, sent by one thread. While more are expected of it, a batch that is not full may wait."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._expected = 1

    def encode(self, crops: Crops, *, last: bool) -> Features:
        """Do what :meth:`Batcher.encode` does; after the ``last`` crops nothing more is expected from this job."""
        return self._batcher._encode_of(crops, self, last=last)

    def _leave(self) -> None:
        self._batcher._expect_more(-self._expected)
        self._expected = 0


class Batcher:
    """Fills batches across callers and encodes them.

    Parameters
    ----------
    encode: ``(n, …)`` crops → ``(n, D)`` float32 features, ``1 ≤ n ≤ max_batch``; called by ``threads`` threads.
    max_batch: most crops per call.
    max_wait_s: seconds that the first crop of a batch waits for more while a caller prepares some (see
        :meth:`source`); where none does, it does not wait.
    threads: batches that are encoded at once.
    check_device: called with an error of ``encode`` and with features that are not finite; raises
        :class:`~maskscore_worker.model.DeviceBroken` where the crops are not to blame.

    Each round gives every waiting caller an equal share of the batch, so that one with 2,000 crops does not hold up
    those behind it. What goes wrong stays with the caller whose crops did it: a batch that fails is encoded again
    caller by caller.
    """

    def __init__(
        self,
        encode: Callable[[Crops], Features],
        *,
        max_batch: int,
        max_wait_s: float,
        threads: int = 1,
        check_device: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._check_device = check_device
        self._max_wait_s = max_wait_s
        self._waiting: deque[Request] = deque()
        self._unanswered: set[Request] = set()
        self._changed = threading.Condition()
        self._closing = False
        self._expected = 0
        self._encoder = MemoryLimitedEncoder(encode, max_batch=max_batch)
        self._created_at = time.monotonic()
        # By thread: how many crops it is encoding.
        self._encoding: dict[int, int] = {}
        self._threads = [
            threading.Thread(target=self._run, name=f"batcher-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self, timeout_s: float | None = None) -> bool:
        """Encode what waits, then stop the threads; return whether all of it was encoded in time.

        Callers that are still waiting after ``timeout_s`` seconds (a device that hangs) get a
        :class:`~maskscore.errors.JobError` with ``internal_error``, transient, so that their threads can end.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        with self._changed:
            left = [request for request in self._unanswered if not request.done.is_set()]
            self._waiting.clear()
        for request in left:
            message = "The worker stopped before the device had answered. Submit the job again."
            request.fail(JobError(FailureCode.INTERNAL_ERROR, message, transient=True))
        return not left

    def encode(self, crops: Crops) -> Features:
        """Return the features of ``(n, …)`` crops, ``(n, D)`` float32, in their order. Blocks; any thread may call.

        Raises :class:`~maskscore.errors.JobError`: ``out_of_memory`` where not even one crop fits the device,
        ``features_not_finite``, or ``internal_error`` when encoding these very crops fails;
        :class:`~maskscore_worker.model.device_check.DeviceBroken` when encoding any crops fails; :class:`ValueError`
        for no crops at all, :class:`RuntimeError` once closed.
        """
        return self._encode_of(crops, None, last=False)

    def _encode_of(self, crops: Crops, source: BatchSource | None, *, last: bool) -> Features:
        if not len(crops):
            raise ValueError("there are no crops to encode")
        request = Request(crops)
        with self._changed:
            if self._closing:
                raise RuntimeError("the batcher is closed")
            if source is not None:
                # In one step with the crops' arrival, or a batch could go off between the two without them.
                self._expected -= source._expected
                source._expected = 0 if last else source._expected
            self._waiting.append(request)
            self._unanswered.add(request)
            self._changed.notify()
        request.done.wait()
        with self._changed:
            self._unanswered.discard(request)
            if source is not None:
                self._expected += source._expected
        if request.error is not None:
            raise request.error
        return request.features()

    @contextmanager
    def source(self) -> Iterator[BatchSource]:
        """Announce a job's crops: a batch that is not full waits a little for them, until its last ones are there."""
        self._expect_more(1)
        source = BatchSource(self)
        try:
            yield source
        finally:
            source._leave()

    def _expect_more(self, change: int) -> None:
        with self._changed:
            self._expected += change
            if self._waiting and not self._expected:
                self._changed.notify()

    def stats(self) -> BatcherStats:
        """Return the counts since the start."""
        with self._changed:
            return BatcherStats(
                batches=self._encoder.batches,
                crops=self._encoder.crops,
                fill=self._encoder.crops / self._encoder.places if self._encoder.places else 0.0,
                waiting_crops=sum(request.left for request in self._waiting),
                encoding_crops=sum(self._encoding.values()),
                max_batch=self._encoder.max_batch,
                last_progress=self._last_progress(),
            )

    def _last_progress(self) -> float:
        # A thread that hangs must show, however well the others go on.
        ended_at = self._encoder.ended_at
        busy = [ended_at.get(thread, self._created_at) for thread in self._encoding]
        return min(busy) if busy else max(ended_at.values(), default=self._created_at)

    def _run(self) -> None:
        while True:
            shares = self._next_batch()
            if not shares:
                return
            try:
                self._serve(shares)
            except BaseException as error:
                # Whatever it is, the callers must hear of it, and the thread must go on for the others.
                for share in shares:
                    self._fail(share.request, error)
            finally:
                with self._changed:
                    self._encoding.pop(threading.get_ident(), None)

    def _next_batch(self) -> list[Share]:
        """Wait for crops and take a batch of them; nothing when the batcher closes."""
        with self._changed:
            while not (self._closing and not self._waiting):
                if not self._waiting:
                    self._changed.wait()
                    continue
                oldest = min(request.arrived for request in self._waiting)
                remaining_s = oldest + self._max_wait_s - time.monotonic()
                full = sum(request.left for request in self._waiting) >= self._encoder.max_batch
                if full or remaining_s <= 0 or self._closing or not self._expected:
                    break
                self._changed.wait(remaining_s)
            return self._take()

    def _take(self) -> list[Share]:
        free = self._encoder.max_batch
        counts = dict.fromkeys(list(self._waiting)[:free], 0)
        # Equal shares first; what small callers leave goes to the others in the order of their arrival.
        while free and any(counts[request] < request.left for request in counts):
            unfilled = [request for request in counts if counts[request] < request.left]
            share = max(1, free // len(unfilled))
            for request in unfilled:
                more = min(share, request.left - counts[request], free)
                counts[request] += more
                free -= more
        shares = []
        for request, count in counts.items():
            if count:
                crops = request.crops[request.taken : request.taken + count]
                shares.append(Share(request, request.taken, crops))
                request.taken += count
        # Those just served go behind the others, or a batch smaller than the queue would always take the same ones.
        unserved = [request for request in self._waiting if not counts.get(request)]
        self._waiting = deque(unserved + [share.request for share in shares if share.request.left])
        if shares:
            self._encoding[threading.get_ident()] = sum(len(share.crops) for share in shares)
        # One thread is woken per event, since any of them may take what waits; what it leaves is the next one's.
        if self._waiting:
            self._changed.notify()
        return shares

    def _serve(self, shares: list[Share]) -> None:
        shares = [share for share in shares if share.request.error is None]
        if not shares:
            return
        try:
            features = self._encoder.encode(joined([share.crops for share in shares]))
        except Exception as error:
            if len(shares) == 1:
                self._fail(shares[0].request, error)
                return
            # Whose crops they were shows when each caller's are encoded alone.
            for share in shares:
                self._serve([share])
            return
        start = 0
        for share in shares:
            part = features[start : start + len(share.crops)]
            start += len(share.crops)
            if np.isfinite(part).all():
                with self._changed:
                    complete = share.request.add(share.start, part)
                if complete:
                    share.request.done.set()
            else:
                message = "The model gave features that are not finite (NaN or infinity) for this job's crops."
                self._fail(share.request, JobError(FailureCode.FEATURES_NOT_FINITE, message))

    def _fail(self, request: Request, error: BaseException) -> None:
        with self._changed:
            self._waiting = deque(waiting for waiting in self._waiting if waiting is not request)
        if not isinstance(error, JobError) or error.code == FailureCode.FEATURES_NOT_FINITE:
            try:
                self._check_device(error)
            except DeviceBroken as broken:
                request.fail(broken)
                return
        if not isinstance(error, JobError):
            log.error("encoding failed", exc_info=error)
            message = f"The model failed on this job's crops: {type(error).__name__}: {error}"
            error = JobError(FailureCode.INTERNAL_ERROR, message)
        request.fail(error)
