"""How a CPU's cores are best shared: crops made by task threads and encoded meanwhile, several ways in turn."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.forward import load_full_size
from bench.material import masks, photograph
from maskscore import Mask
from maskscore.imaging import ClipTransform
from maskscore.masks import encode_mask
from maskscore.schema.job import View
from maskscore_worker.batching import Batcher
from maskscore_worker.crops.cpu_cropper import make_crop
from maskscore_worker.masks.regions import Region, find_regions
from maskscore_worker.model.cpu_threads import CROPS_PER_PASS, ComputeThreads

__all__ = ["run"]

SIZE = 224
CHUNK = 24


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Let task threads crop and wait for features for some seconds, with each way of encoding."""
    cores = torch.get_num_threads()
    model = load_full_size("bf16")
    pixels = photograph()
    height, width = pixels.shape[:2]
    found = [Mask(id=str(n), segmentation=encode_mask(bits)) for n, bits in enumerate(masks(100))]
    regions = [
        region
        for region in find_regions(found, height=height, width=width, min_area=0, split_components=False)
        if isinstance(region, Region)
    ]

    def crop(at: int) -> Any:
        region = regions[at % len(regions)]
        return make_crop(pixels, region.box, region.bits, View(), transform=ClipTransform(SIZE), exact=False)

    ways: dict[str, tuple[int, Callable[[], Batcher]]] = {}
    for tasks in (1, 2, 4, 8):
        ways[f"{cores} lanes of one thread, {tasks} task threads"] = (
            tasks,
            lambda: Batcher(
                ComputeThreads(model.encode_images, cores).encode,
                max_batch=CROPS_PER_PASS,
                max_wait_s=0.005,
                threads=cores,
            ),
        )
    ways[f"one pass over {cores} threads, 4 task threads"] = (
        4,
        lambda: Batcher(_wide(model, cores), max_batch=64, max_wait_s=0.005),
    )
    expected = model.encode_images(np.stack([crop(at) for at in range(CHUNK)]))
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(5 if full else 3):
        for name, (tasks, make) in ways.items():
            batcher = make()
            batcher.start()
            if np.abs(batcher.encode(np.stack([crop(at) for at in range(CHUNK)])) - expected).max() > 2e-2:
                raise AssertionError(f"{name} gives other features")
            rates[name].append(_rate(batcher, crop, tasks, seconds=8 if full else 4))
            batcher.close()
    table = Table(title="bf16, ViT-B-32 at full size, crops made and encoded")
    for column in ("way", "crops/s", "crops per core-second"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, taken in rates.items():
        wall, cpu = (statistics.median(values) for values in zip(*taken, strict=True))
        table.add_row(name, f"{wall:.1f}", f"{cpu:.1f}")
    console.print(table)
    lanes, wide = f"{cores} lanes of one thread, 4 task threads", f"one pass over {cores} threads, 4 task threads"
    figures["threads.lanes_over_one_pass"] = statistics.median(
        ours[0] / theirs[0] for ours, theirs in zip(rates[lanes], rates[wide], strict=True)
    )


def _wide(model: Any, threads: int) -> Callable[[Any], Any]:
    def encode(crops: Any) -> Any:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        return model.encode_images(crops)

    return encode


def _rate(batcher: Batcher, crop: Callable[[int], Any], tasks: int, *, seconds: float) -> tuple[float, float]:
    """Return crops per second and per second of this process's processor time."""
    counts = [0] * tasks
    started, used = time.perf_counter(), time.process_time()

    def task(number: int) -> None:
        while time.perf_counter() - started < seconds:
            batcher.encode(np.stack([crop(number * 7 + at) for at in range(CHUNK)]))
            counts[number] += CHUNK

    threads = [threading.Thread(target=task, args=(number,)) for number in range(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = sum(counts)
    return total / (time.perf_counter() - started), total / (time.process_time() - used)
