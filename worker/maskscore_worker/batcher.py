"""Crops of many jobs → full batches → features: one thread owns a GPU, some share a CPU."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from maskscore.errors import FailureCode, JobError
from maskscore_worker.model import DeviceBroken, is_out_of_memory

__all__ = ["Batcher", "BatcherStats", "Caller"]

log = logging.getLogger(__name__)

# NumPy's arrays or PyTorch's tensors; both can be counted and cut into parts.
Crops = Any
Features = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BatcherStats:
    """What the device has done and has before it.

    ``batches`` and ``crops`` count what was encoded, ``fill`` is the mean share of a batch's places that was used
    (0 to 1). ``encoding_crops`` are on the device now; ``last_progress`` is :func:`time.monotonic` of the last time
    that a batch ended, well or not; with several lanes, of the busy lane for which that is the longest ago.
    ``max_batch`` is today's limit, lower than the one given after the device ran out of memory.
    """

    batches: int
    crops: int
    fill: float
    waiting_crops: int
    encoding_crops: int
    max_batch: int
    last_progress: float


class _Request:
    """One caller's crops: how many are taken, which features are there."""

    def __init__(self, crops: Crops) -> None:
        self.crops = crops
        self.arrived = time.monotonic()
        self.taken = 0
        self.parts: dict[int, Features] = {}
        self.error: BaseException | None = None
        self.done = threading.Event()

    @property
    def left(self) -> int:
        return len(self.crops) - self.taken

    def add(self, start: int, part: Features) -> bool:
        """Take the features of the crops from ``start`` on; return whether all are there. Under the batcher's lock."""
        self.parts[start] = part
        return sum(map(len, self.parts.values())) == len(self.crops)

    def features(self) -> Features:
        """All features, in the crops' order."""
        return np.concatenate([self.parts[start] for start in sorted(self.parts)])

    def fail(self, error: BaseException) -> None:
        if not self.done.is_set():
            self.error = error
            self.done.set()


@dataclass(frozen=True, slots=True)
class _Share:
    """What one caller has in a batch: its crops from ``start`` on."""

    request: _Request
    start: int
    crops: Crops


class Caller:
    """One job before the batcher, used by one thread: as long as more may come from it, others' crops may wait."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._coming = 1

    def encode(self, crops: Crops, *, last: bool) -> Features:
        """Do what :meth:`Batcher.encode` does; after the ``last`` crops nothing more is expected from this caller."""
        return self._batcher._encode_of(crops, self, last=last)

    def _leave(self) -> None:
        self._batcher._expect(-self._coming)
        self._coming = 0


class Batcher:
    """Fills batches across callers and encodes them.

    Parameters
    ----------
    encode: ``(n, …)`` crops → ``(n, D)`` float32 features, ``1 ≤ n ≤ max_batch``; called by ``lanes`` threads.
    max_batch: most crops per call.
    max_wait_s: seconds that the first crop of a batch waits for more while a caller prepares some (see
        :meth:`caller`); where none does, it does not wait.
    lanes: batches that are encoded at once.
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
        lanes: int = 1,
        check_device: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._encode = encode
        self._check_device = check_device
        self._limit = max_batch
        self._max_wait_s = max_wait_s
        self._waiting: deque[_Request] = deque()
        self._unanswered: set[_Request] = set()
        self._changed = threading.Condition()
        self._closing = False
        self._batches = self._crops = self._places = 0
        self._coming = 0
        # By thread: when a batch of it last ended; and how many crops each is encoding.
        self._progress = {0: time.monotonic()}
        self._encoding: dict[int, int] = {}
        self._threads = [
            threading.Thread(target=self._run, name=f"batcher-{lane}", daemon=True) for lane in range(lanes)
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

    def _encode_of(self, crops: Crops, caller: Caller | None, *, last: bool) -> Features:
        if not len(crops):
            raise ValueError("there are no crops to encode")
        request = _Request(crops)
        with self._changed:
            if self._closing:
                raise RuntimeError("the batcher is closed")
            if caller is not None:
                # In one step with the crops' arrival, or a batch could go off between the two without them.
                self._coming -= caller._coming
                caller._coming = 0 if last else caller._coming
            self._waiting.append(request)
            self._unanswered.add(request)
            self._changed.notify_all()
        request.done.wait()
        with self._changed:
            self._unanswered.discard(request)
            if caller is not None:
                self._coming += caller._coming
        if request.error is not None:
            raise request.error
        return request.features()

    @contextmanager
    def caller(self) -> Iterator[Caller]:
        """Announce crops: a batch that is not full waits a little for this caller's until its last ones are there."""
        self._expect(1)
        caller = Caller(self)
        try:
            yield caller
        finally:
            caller._leave()

    def _expect(self, change: int) -> None:
        with self._changed:
            self._coming += change
            self._changed.notify_all()

    def stats(self) -> BatcherStats:
        """Return the counts since the start."""
        with self._changed:
            return BatcherStats(
                batches=self._batches,
                crops=self._crops,
                fill=self._crops / self._places if self._places else 0.0,
                waiting_crops=sum(request.left for request in self._waiting),
                encoding_crops=sum(self._encoding.values()),
                max_batch=self._limit,
                last_progress=self._last_moved(),
            )

    def _last_moved(self) -> float:
        # A lane that hangs must show, however well the others go on.
        started = self._progress[0]
        busy = [self._progress.get(lane, started) for lane in self._encoding]
        return min(busy) if busy else max(self._progress.values())

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

    def _next_batch(self) -> list[_Share]:
        """Wait for crops and take a batch of them; nothing when the batcher closes."""
        with self._changed:
            while not (self._closing and not self._waiting):
                if not self._waiting:
                    self._changed.wait()
                    continue
                oldest = min(request.arrived for request in self._waiting)
                patience = oldest + self._max_wait_s - time.monotonic()
                full = sum(request.left for request in self._waiting) >= self._limit
                if full or patience <= 0 or self._closing or not self._coming:
                    break
                self._changed.wait(patience)
            return self._take()

    def _take(self) -> list[_Share]:
        room = self._limit
        counts = dict.fromkeys(list(self._waiting)[:room], 0)
        # Equal shares first; what small callers leave goes to the others in the order of their arrival.
        while room and any(counts[request] < request.left for request in counts):
            hungry = [request for request in counts if counts[request] < request.left]
            share = max(1, room // len(hungry))
            for request in hungry:
                more = min(share, request.left - counts[request], room)
                counts[request] += more
                room -= more
        shares = []
        for request, count in counts.items():
            if count:
                crops = request.crops[request.taken : request.taken + count]
                shares.append(_Share(request, request.taken, crops))
                request.taken += count
        # Those just served go behind the others, or a batch smaller than the queue would always take the same ones.
        unserved = [request for request in self._waiting if not counts.get(request)]
        self._waiting = deque(unserved + [share.request for share in shares if share.request.left])
        if shares:
            self._encoding[threading.get_ident()] = sum(len(share.crops) for share in shares)
        return shares

    def _serve(self, shares: list[_Share]) -> None:
        shares = [share for share in shares if share.request.error is None]
        if not shares:
            return
        try:
            features = self._encode_within_memory(_joined([share.crops for share in shares]))
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

    def _encode_within_memory(self, crops: Crops) -> Features:
        parts = []
        while len(crops):
            batch = crops[: self._limit]
            features = self._try(batch)
            if features is None:
                # Only now, with the exception and the tensors it held gone, is there memory to give back.
                self._halve(len(batch))
                continue
            if features.ndim != 2 or len(features) != len(batch):
                raise RuntimeError(f"the encoder gave features of shape {features.shape} for {len(batch)} crops")
            parts.append(features)
            crops = crops[len(batch) :]
        return np.concatenate(parts)

    def _try(self, batch: Crops) -> Features | None:
        """Return the features, or ``None`` where a smaller batch might fit the device's memory."""
        try:
            features = self._encode(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise JobError(
                    FailureCode.OUT_OF_MEMORY,
                    "Not even one crop fits the device's memory. Free it, or use a device with more.",
                    of_worker=True,
                ) from error
            return None
        else:
            with self._changed:
                self._batches += 1
                self._crops += len(batch)
                self._places += self._limit
            return features
        finally:
            with self._changed:
                self._progress[threading.get_ident()] = time.monotonic()

    def _halve(self, size: int) -> None:
        with self._changed:
            self._limit = min(self._limit, size // 2)
        log.warning("out of device memory with %d crops; going on with at most %d", size, size // 2)
        torch.cuda.empty_cache()

    def _fail(self, request: _Request, error: BaseException) -> None:
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


def _joined(parts: list[Crops]) -> Crops:
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    # Where the device had no memory left for a caller's crops, they were made on the CPU.
    tensors = [torch.as_tensor(part) for part in parts]
    device = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), tensors[0].device)
    return torch.cat([tensor.to(device) for tensor in tensors])
