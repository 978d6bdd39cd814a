"""A CPU's cores shared between forward passes: many at once with one thread each, or one with all threads.

One pass over many threads meets them after every operator, so whatever else runs on one core holds up all of them;
passes with one thread each never wait for one another, and the task threads' work falls between them. A crop that is
alone on the machine still gets all cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["CROPS_PER_PASS", "ComputeThreads"]

CROPS_PER_PASS: Final = 8
"""Crops per pass: a CPU is as fast with them as with more, and their activations stay in its cache."""

Crops = npt.NDArray[Any]
Features = npt.NDArray[np.float32]


class ComputeThreads:
    """Calls ``encode`` from ``count`` threads at once; each call takes its share of ``count`` intra-op threads."""

    def __init__(self, encode: Callable[[Crops], Features], count: int) -> None:
        self._encode = encode
        self._count = count
        self._active = 0
        self._lock = threading.Lock()

    def encode(self, crops: Crops) -> Features:
        """Return ``encode(crops)``; any thread may call. Sets the calling thread's number of intra-op threads."""
        with self._lock:
            self._active += 1
            share = max(1, self._count // self._active)
        try:
            # It is a number per thread; setting it drops what oneDNN has prepared, so only where it changes.
            if torch.get_num_threads() != share:
                torch.set_num_threads(share)
            return self._encode(crops)
        finally:
            with self._lock:
                self._active -= 1
