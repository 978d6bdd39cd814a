"""Encoding within the device's memory: after an out-of-memory error the batches become smaller."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from maskscore.errors import FailureCode, JobError
from maskscore_worker.model import is_out_of_memory

__all__ = ["Crops", "Features", "MemoryLimitedEncoder", "joined"]

log = logging.getLogger(__name__)

# NumPy's arrays or PyTorch's tensors; both can be counted and cut into parts.
Crops = Any
Features = npt.NDArray[np.float32]


class MemoryLimitedEncoder:
    """Calls ``encode`` with at most ``max_batch`` crops, and halves that limit when memory runs out.

    Safe to call from threads. ``batches`` and ``crops`` count what was encoded, ``places`` what would have fitted in.
    ``ended_at`` is, by thread, :func:`time.monotonic` of the end of its last call, successful or not.
    """

    def __init__(self, encode: Callable[[Crops], Features], *, max_batch: int) -> None:
        self._encode = encode
        self._lock = threading.Lock()
        self.max_batch = max_batch
        self.batches = self.crops = self.places = 0
        self.ended_at: dict[int, float] = {}

    def encode(self, crops: Crops) -> Features:
        """Return the ``(n, D)`` float32 features of ``(n, …)`` crops, in their order.

        Raises :class:`~maskscore.errors.JobError` with ``out_of_memory`` where not even one crop fits, and whatever
        else ``encode`` raises.
        """
        parts = []
        while len(crops):
            batch = crops[: self.max_batch]
            features = self._encode_or_none(batch)
            if features is None:
                # Only now, with the exception and the tensors it held gone, is there memory to release.
                self._halve(len(batch))
                continue
            if features.ndim != 2 or len(features) != len(batch):
                raise RuntimeError(f"the encoder gave features of shape {features.shape} for {len(batch)} crops")
            parts.append(features)
            crops = crops[len(batch) :]
        return np.concatenate(parts)

    def _encode_or_none(self, batch: Crops) -> Features | None:
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
            with self._lock:
                self.batches += 1
                self.crops += len(batch)
                self.places += self.max_batch
            return features
        finally:
            with self._lock:
                self.ended_at = {**self.ended_at, threading.get_ident(): time.monotonic()}

    def _halve(self, size: int) -> None:
        with self._lock:
            self.max_batch = min(self.max_batch, size // 2)
        log.warning("out of device memory with %d crops; going on with at most %d", size, size // 2)
        torch.cuda.empty_cache()


def joined(parts: list[Crops]) -> Crops:
    """Return the crops of several callers as one array or tensor, on the device where any of them is."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    # Where the device had no memory left for a caller's crops, they were made on the CPU.
    tensors = [torch.as_tensor(part) for part in parts]
    device = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), tensors[0].device)
    return torch.cat([tensor.to(device) for tensor in tensors])
