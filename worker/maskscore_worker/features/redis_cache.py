"""The feature cache in Redis: bounded in bytes and time, and nothing is added when Redis's memory is nearly full."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, TypeVar

import redis

__all__ = ["RedisFeatureStore"]

# The rest of Redis's memory is the queue's and the results'.
_MOST_OF_MEMORY = 0.7
_LOOK_EVERY_S = 5.0
# Redis does nothing else while a script runs: half a megabyte of features at a time.
_CHUNK = 256

T = TypeVar("T")


class RedisFeatureStore:
    """Values by key, shared by the workers of a namespace.

    ``max_bytes`` counts the values and 300 bytes for each, which is what Redis needs to keep one. A value is
    dropped ``ttl_s`` seconds after its last use, or earlier, the least recently used first. Nothing is added while
    Redis uses more than 70 % of its ``maxmemory``. Every method raises :class:`redis.RedisError`.
    """

    def __init__(self, client: redis.Redis, *, namespace: str, max_bytes: int, ttl_s: float) -> None:
        self._redis: Any = client
        self._keys = [f"{namespace}:features"]
        self._limits = (int(ttl_s * 1000), max_bytes)
        folder = resources.files(__package__)
        self._get: Any = client.register_script(folder.joinpath("feature_get.lua").read_text("utf-8"))
        self._put: Any = client.register_script(folder.joinpath("feature_put.lua").read_text("utf-8"))
        self._lock = threading.Lock()
        self._room = True
        self._looked: float | None = None

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are there."""
        found = {}
        for chunk in _chunks(keys):
            values = self._get(keys=self._keys, args=[self._limits[0], *chunk])
            found.update({key: value for key, value in zip(chunk, values, strict=True) if value})
        return found

    def put(self, values: Mapping[bytes, bytes]) -> None:
        """Store values, and evict the least recently used ones where there is no space."""
        for chunk in _chunks(list(values.items())):
            if self._has_room():
                self._put(keys=self._keys, args=[*self._limits, *(part for pair in chunk for part in pair)])

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _has_room(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if self._looked is None or now - self._looked > _LOOK_EVERY_S:
                memory = self._redis.info("memory")
                limit = memory.get("maxmemory", 0)
                self._room = not limit or memory["used_memory"] < limit * _MOST_OF_MEMORY
                self._looked = now
            return self._room


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
