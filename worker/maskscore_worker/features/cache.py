"""The cache of earlier jobs' features; when its store fails, the failure is logged and features are computed."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import redis

from maskscore.broker import connect
from maskscore.errors import ServiceUnavailable
from maskscore.settings import WorkerSettings
from maskscore_worker.features.redis_cache import RedisFeatureStore
from maskscore_worker.features.sqlite_cache import SqliteFeatureStore

__all__ = ["FeatureCache", "FeatureStore", "open_feature_cache"]

log = logging.getLogger(__name__)

Features = npt.NDArray[np.float32]
T = TypeVar("T")

# Not fp16, which is half as large: CLIP multiplies cosines by 100, so that it moves probabilities by up to 1.2e-3
# (20,000 random features of 512 numbers, each between two of 180 prompts), and the service promises 1e-3 in all.
_STORED = np.dtype("<f4")
_REST_S = 30.0
# A job waits for Redis no longer than encoding a batch again would take.
_REDIS_TIMEOUT_S = 1.0


class FeatureStore(Protocol):
    """A store of bytes by key. Raises sqlite3's, redis-py's and the system's own errors."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are there."""

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Store values, and evict the least recently used ones where there is no space."""

    def close(self) -> None:
        """Close files and connections."""


class FeatureCache:
    """Features by key; safe to share between threads.

    Parameters
    ----------
    open_store: opens the store; called at the first use, and again while it cannot be opened.
    place: its name in the log.
    dimensions: length of a feature; values of another length are ignored.
    rest_s: seconds before a store that failed is used again.
    """

    def __init__(
        self, open_store: Callable[[], FeatureStore], *, place: str, dimensions: int, rest_s: float = _REST_S
    ) -> None:
        self._open = open_store
        self._place = place
        self._bytes = dimensions * _STORED.itemsize
        self._rest_s = rest_s
        self._store: FeatureStore | None = None
        self._resting_until = 0.0
        self._lock = threading.Lock()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Features]:
        """Return the ``(D,)`` float32 features of those keys that are there."""
        found: dict[bytes, bytes] = self._attempt(lambda store: store.get(keys), {})
        features = {
            key: np.frombuffer(value, _STORED).astype(np.float32)
            for key, value in found.items()
            if len(value) == self._bytes
        }
        return {key: feature for key, feature in features.items() if np.isfinite(feature).all()}

    def put(self, features: Mapping[bytes, Features]) -> None:
        """Store ``(D,)`` features by key."""
        values = {key: feature.astype(_STORED).tobytes() for key, feature in features.items()}
        self._attempt(lambda store: store.put(values), None)

    def close(self) -> None:
        """Close the store."""
        with self._lock:
            store, self._store = self._store, None
        if store is not None:
            store.close()

    def _attempt(self, step: Callable[[FeatureStore], T], otherwise: T) -> T:
        if time.monotonic() < self._resting_until:
            return otherwise
        try:
            with self._lock:
                if self._store is None:
                    self._store = self._open()
                store = self._store
            return step(store)
        except (sqlite3.Error, redis.RedisError, ServiceUnavailable, OSError) as error:
            with self._lock:
                first = time.monotonic() >= self._resting_until
                self._resting_until = time.monotonic() + self._rest_s
            if first:
                log.warning(
                    "the feature cache in %s failed (%s: %s); it is not used for %g s, and features are computed",
                    self._place,
                    type(error).__name__,
                    error,
                    self._rest_s,
                )
            return otherwise


def open_feature_cache(settings: WorkerSettings, *, dimensions: int) -> FeatureCache | None:
    """Return the cache that the settings name; ``None`` where they name none. ``dimensions`` is a feature's length."""
    place = settings.feature_cache
    if place is None:
        return None
    if place == "redis":
        timeout_s = min(_REDIS_TIMEOUT_S, settings.redis_timeout_s)
        short_timeout = settings.model_copy(update={"redis_timeout_s": timeout_s})
        return FeatureCache(
            lambda: RedisFeatureStore(
                connect(short_timeout),
                namespace=settings.namespace,
                max_bytes=settings.feature_cache_bytes,
                ttl_s=settings.result_ttl_s,
            ),
            place="Redis",
            dimensions=dimensions,
        )
    folder = Path(place)
    return FeatureCache(
        lambda: SqliteFeatureStore(folder, max_bytes=settings.feature_cache_bytes), place=place, dimensions=dimensions
    )
