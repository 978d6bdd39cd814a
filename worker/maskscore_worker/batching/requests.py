"""A caller's request to the batcher, and its share of one batch."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from maskscore_worker.batching.memory_limit import Crops, Features

__all__ = ["Request", "Share"]


class Request:
    """One caller's crops, ``(n, …)``, how many of them batches have taken, and the features that came back."""

    def __init__(self, crops: Crops) -> None:
        self.crops = crops
        self.arrived = time.monotonic()
        self.taken = 0
        self.parts: dict[int, Features] = {}
        self.error: BaseException | None = None
        self.done = threading.Event()

    @property
    def left(self) -> int:
        """Crops that no batch has taken yet."""
        return len(self.crops) - self.taken

    def add(self, start: int, part: Features) -> bool:
        """Take the features of the crops from ``start`` on; return whether all are there. Under the batcher's lock."""
        self.parts[start] = part
        return sum(map(len, self.parts.values())) == len(self.crops)

    def features(self) -> Features:
        """All features, in the crops' order."""
        return np.concatenate([self.parts[start] for start in sorted(self.parts)])

    def fail(self, error: BaseException) -> None:
        """End the request with an error, unless it has ended already."""
        if not self.done.is_set():
            self.error = error
            self.done.set()


@dataclass(frozen=True, slots=True)
class Share:
    """One caller's crops in a batch; ``start`` is the position of the first one in its request."""

    request: Request
    start: int
    crops: Crops
