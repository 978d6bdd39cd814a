"""The image tower on a GPU at a few fixed batch sizes: captured once as CUDA graphs, then replayed.

Of ViT-B/32's forward of a small batch most of the time is launching its kernels; a graph launches them all at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["CudaGraphEncoder", "graph_batch_sizes"]

log = logging.getLogger(__name__)

Features = npt.NDArray[np.float32]
Tower = Callable[[torch.Tensor], torch.Tensor]


def graph_batch_sizes(most: int) -> list[int]:
    """Return the batch sizes up to ``most``: powers of two and, from 16 on, halfway between, so that few are padded."""
    powers = [1 << exponent for exponent in range(most.bit_length())]
    between = [power * 3 // 2 for power in powers if power >= 16 and power * 3 // 2 <= most]
    return sorted({*powers, *between, most})


@dataclass(frozen=True, slots=True)
class _FixedBatch:
    """The memory of one batch size; ``run`` computes ``features`` from ``crops`` in place."""

    crops: torch.Tensor
    features: torch.Tensor
    run: Callable[[], None]


class CudaGraphEncoder:
    """Encodes crops in batches of fixed sizes; any thread may call :meth:`encode`.

    Parameters
    ----------
    tower: ``(n, *shape)`` crops on ``device`` → ``(n, D)`` float32 features, without reading any value on the host
        (a graph could not replay that).
    shape, dtype: of one crop.
    sizes: the batch sizes. Crops are padded up to the next one, and the padding's features dropped; more than the
        largest are cut into several. Sizes for which the device's memory does not suffice are left out.

    Callers' copies and forwards go to one stream in turn; each waits for its own features outside the lock. So with two
    threads, a batch is gathered and uploaded while the one before it is on the device.
    """

    def __init__(
        self, tower: Tower, *, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, sizes: list[int]
    ) -> None:
        self._tower = tower
        self._device = device
        self._lock = threading.Lock()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._pool: Any = None
        self._batches: dict[int, _FixedBatch] = {}
        for size in sorted(sizes):
            try:
                self._batches[size] = self._prepared(torch.zeros((size, *shape), dtype=dtype, device=device))
            except torch.OutOfMemoryError:
                if not self._batches:
                    raise
                log.warning("batches of %d crops do not fit the device's memory; %d is the most", size, max(self.sizes))
                break

    @property
    def sizes(self) -> list[int]:
        """The batch sizes, the smallest first."""
        return list(self._batches)

    def encode(self, crops: npt.NDArray[Any] | torch.Tensor) -> Features:
        """Return the features of ``(n, *shape)`` crops, ``(n, D)`` float32, in their order."""
        pieces = torch.split(torch.as_tensor(crops), self.sizes[-1])
        parts = []
        for piece in pieces:
            batch = self._batches[next(size for size in self.sizes if size >= len(piece))]
            parts.append(self._features(batch, piece))
        return np.concatenate(parts)

    def run_plainly(self, size: int) -> None:
        """Run batches of one of :attr:`sizes` without its graph from now on."""
        with self._lock, torch.inference_mode():
            if self._stream is None:
                self._batches[size] = self._plain(self._batches[size].crops)
                return
            with torch.cuda.stream(self._stream):
                self._batches[size] = self._plain(self._batches[size].crops)

    def _features(self, batch: _FixedBatch, crops: torch.Tensor) -> Features:
        count = len(crops)
        if self._stream is None:
            with self._lock, torch.inference_mode():
                batch.crops[:count].copy_(crops)
                batch.run()
                here: Features = batch.features[:count].numpy().copy()
                return here
        if crops.device.type == "cpu":
            crops = crops.pin_memory()
        with self._lock, torch.inference_mode():
            if crops.device.type == "cuda":
                # The caller's stream may still be putting them together.
                self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                batch.crops[:count].copy_(crops, non_blocking=True)
                batch.run()
                features = torch.empty((count, batch.features.shape[1]), dtype=torch.float32, pin_memory=True)
                features.copy_(batch.features[:count], non_blocking=True)
                ready = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
                ready.record(self._stream)
        # `crops` is held until then, so that nobody is given its memory before it was read.
        ready.synchronize()
        array: Features = features.numpy()
        return array

    def _prepared(self, crops: torch.Tensor) -> _FixedBatch:
        with torch.inference_mode():
            if self._stream is None:
                return self._plain(crops)
            with torch.cuda.stream(self._stream):
                self._stream.wait_stream(torch.cuda.default_stream(self._device))
                for _ in range(2):  # libraries choose their kernels and take their workspaces before the capture
                    self._tower(crops)
                self._stream.synchronize()
            try:
                # Makes the device the current one, and gives the thread its own stream back where a capture breaks off.
                with torch.cuda.stream(self._stream):
                    return self._captured(crops)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                log.warning("batches of %d are run without a CUDA graph: %s", len(crops), error)
            with torch.cuda.stream(self._stream):
                return self._plain(crops)

    def _plain(self, crops: torch.Tensor) -> _FixedBatch:
        features = self._tower(crops).clone()

        def run() -> None:
            features.copy_(self._tower(crops))

        return _FixedBatch(crops, features, run)

    def _captured(self, crops: torch.Tensor) -> _FixedBatch:
        graph = torch.cuda.CUDAGraph()
        # One pool for all sizes: they never run at the same time. Other threads may go on using the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            features = self._tower(crops)
        self._pool = self._pool or graph.pool()
        return _FixedBatch(crops, features, graph.replay)
