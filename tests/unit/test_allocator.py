"""The worker's memory: the next image costs no page faults, and the masks of many no search for garbage."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone")

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

# Ten arrays of the size of a photo, one after the other, as those of ten jobs are.
_PHOTOS = """
import resource, numpy as np
from maskscore_worker.model.allocator import keep_freed_memory
print(keep_freed_memory())
np.ones((1500, 2250, 3), np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones((1500, 2250, 3), np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

# Threads that each have an image at the same time.
_THREADS = """
import ctypes, numpy as np
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from maskscore_worker.model.allocator import keep_freed_memory
keep_freed_memory()
libc, together = ctypes.CDLL(None), Barrier(12)
libc.fopen.restype = ctypes.c_void_p

def hold(_):
    image = np.ones((100, 100, 3), np.uint8)
    together.wait()
    return image.size

with ThreadPoolExecutor(12) as threads:
    list(threads.map(hold, range(12)))
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""

# The masks of forty images, as objects that the collector sees, all alive.
_MASKS = """
import gc
from maskscore_worker.model.allocator import collect_rarely
collect_rarely()
gc.callbacks.append(lambda phase, about: print("collected"))
masks = [[{}] for _ in range(20_000)]
gc.callbacks.clear()
print(len(masks), gc.get_freeze_count() > 1000)
"""


def faults(**variables: str) -> tuple[bool, int]:
    environment = {**ENVIRONMENT, **variables}
    # NumPy asks for huge pages for blocks of this size, of which there are few faults and few machines.
    environment["NUMPY_MADVISE_HUGEPAGE"] = "0"
    answer = subprocess.run(
        [sys.executable, "-c", _PHOTOS], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    return answer[0] == "True", int(answer[1])


def test_the_next_image_takes_the_last_ones_memory() -> None:
    kept, count = faults()
    assert kept
    assert count < 100


def test_thresholds_of_the_environment_stay() -> None:
    kept, count = faults(MALLOC_MMAP_THRESHOLD_="131072")
    assert not kept
    assert count > 10_000


@pytest.mark.parametrize(("variables", "arenas"), [({}, 4), ({"MALLOC_ARENA_MAX": "2"}, 2)])
def test_threads_share_a_few_arenas(variables: dict[str, str], arenas: int) -> None:
    environment = {**ENVIRONMENT, **variables}
    answer = subprocess.run(
        [sys.executable, "-c", _THREADS], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.count("<heap nr=") == arenas


def test_masks_of_many_images_are_no_reason_to_look_for_garbage() -> None:
    answer = subprocess.run([sys.executable, "-c", _MASKS], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["20000", "True"]
