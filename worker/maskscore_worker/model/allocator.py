"""The memory of a worker: what glibc's allocator keeps for the next image, and when Python looks for garbage.

By default glibc returns every large block at once, and the system hands out new ones page by page, each a fault: for a
photo of 2250 × 1500, that is two thirds of the time of decoding. Threads share up to eight arenas per core, and each
keeps what the largest image in it took. Python by default looks at what is new after 700 objects, as many as fifty
masks are, and at older ones again and again, while no other thread can run Python.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from typing import Final

__all__ = ["collect_rarely", "keep_freed_memory"]

# mallopt(3), malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_KEPT_BYTES: Final = 256 << 20
# The most that glibc takes (HEAP_MAX_SIZE / 2): an image of ten megapixels.
_BLOCK_BYTES: Final = 32 << 20
_ARENAS: Final = 4
_VARIABLES: Final = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")

# New objects of some fifty images; a worker's steps leave no cycles behind.
_NEW_OBJECTS: Final = 50_000


def collect_rarely() -> None:
    """Look for garbage after 50,000 new objects, and never among those that are there now: call it once all is loaded.

    What is in no cycle is freed at once, as ever.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 20)


def keep_freed_memory() -> bool:
    """Keep up to 256 MiB of freed memory, take blocks below 32 MiB from the heap, and have four arenas at most.

    For the whole process, from now on; ``MALLOC_ARENA_MAX`` in the environment gives another number of arenas. Returns
    whether it was done: only with glibc, and not where the environment has thresholds of its own
    (``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_``, ``GLIBC_TUNABLES``).
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _VARIABLES):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    if "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, _ARENAS)
    # Setting one of them ends glibc's own, rising thresholds; so both, or the first alone would make it worse.
    return bool(mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
