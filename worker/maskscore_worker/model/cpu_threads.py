"""Compute threads: a CPU's cores are shared between concurrent forward passes.

A pass over many threads synchronises them after every operator, so other work on one core delays all of them. Passes
with one thread each never wait for one another. A pass that runs alone gets all cores, but not where it is alone for a
moment only, between two batches of others: they would wait for its threads, and oneDNN prepares its products anew for
each number of threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["CROPS_PER_PASS", "ComputeThreads"]

CROPS_PER_PASS: Final = 8
"""Crops per pass: a CPU is as fast with them as with more, and their activations stay in its cache."""

_REMEMBERED_S: Final = 1.0

Crops = npt.NDArray[Any]
Features = npt.NDArray[np.float32]


class ComputeThreads:
    """Divides ``count`` intra-op threads between the calls of ``encode`` that run at the same time."""

    def __init__(self, encode: Callable[[Crops], Features], count: int) -> None:
        self._encode = encode
        self._count = count
        self._active = 0
        self._most, self._most_at = 0, 0.0
        self._lock = threading.Lock()

    def encode(self, crops: Crops) -> Features:
        """Return ``encode(crops)``; any thread may call. Sets the calling thread's number of intra-op threads."""
        with self._lock:
            self._active += 1
            now = time.monotonic()
            if self._active >= self._most or now > self._most_at + _REMEMBERED_S:
                self._most, self._most_at = self._active, now
            share = max(1, self._count // self._most)
        try:
            # It is a number per thread; setting it drops what oneDNN has prepared, so only where it changes.
            if torch.get_num_threads() != share:
                torch.set_num_threads(share)
            return self._encode(crops)
        finally:
            with self._lock:
                self._active -= 1
