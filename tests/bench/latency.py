"""Submit to result of one job of one mask on an idle worker, against fetch, decode, crop and forward alone."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.forward import load_full_size
from bench.material import full_size_weights, jpeg, masks, photograph
from bench.stack import BUCKET, running_services, running_worker, upload
from maskscore import Job, Mask, ScoringOptions
from maskscore.imaging import ClipTransform
from maskscore.masks import encode_mask
from maskscore.storage import Objects
from maskscore_worker.crops.cpu_cropper import make_crop
from maskscore_worker.inputs.images import ImageFile, decode_image
from maskscore_worker.masks.regions import Region, find_regions
from maskscore_worker.model.clip import ClipModel

__all__ = ["run"]

OPTIONS = ScoringOptions(prompts="demo")
SHAPE = (480, 640)


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure both in turn; nothing else waits in the worker."""
    model = load_full_size("fp32")
    mask = Mask(id="1", segmentation=encode_mask(masks(1, height=SHAPE[0], width=SHAPE[1])[0]))
    with running_services() as services:
        image = upload(jpeg(photograph(*SHAPE)), "one.jpg")
        objects = Objects(buckets=(BUCKET,), result_buckets=())
        ours: list[float] = []
        alone: list[float] = []
        stages: dict[str, list[float]] = {}
        with running_worker(services, full_size_weights(), prompts="demo") as (client, _):
            for turn in range((60 if full else 15) + 2):
                started = time.perf_counter()
                result = client.submit(Job(image=image, masks=[mask], options=OPTIONS)).wait(timeout=300)
                taken = time.perf_counter() - started
                if result.components[0].s_pos is None or result.timings is None:
                    raise AssertionError(f"the job has no score: {result}")
                started = time.perf_counter()
                _alone(objects, model, image, mask)
                if turn >= 2:  # the first ones make connections
                    ours.append(taken)
                    alone.append(time.perf_counter() - started)
                    inside = result.timings.model_dump()
                    inside["before and after"] = taken - inside["queue"] - inside["total"]
                    for name, seconds in inside.items():
                        stages.setdefault(name, []).append(seconds)
        objects.close()
    table = Table(title=f"one job of one mask, {len(ours)} times, fp32, {torch.get_num_threads()} cores")
    table.add_column("what")
    table.add_column("median ms", justify="right")
    table.add_row("submit to result", f"{statistics.median(ours) * 1000:.1f}")
    table.add_row("fetch, decode, crop, forward alone", f"{statistics.median(alone) * 1000:.1f}")
    overhead = statistics.median(a - b for a, b in zip(ours, alone, strict=True)) * 1000
    table.add_row("overhead", f"{overhead:.1f}", end_section=True)
    for name, seconds in stages.items():
        table.add_row(f"[dim]the job's {name}[/]", f"[dim]{statistics.median(seconds) * 1000:.1f}[/]")
    console.print(table)
    figures["latency.ours_ms"] = statistics.median(ours) * 1000
    figures["latency.alone_ms"] = statistics.median(alone) * 1000
    figures["latency.overhead_ms"] = overhead


def _alone(objects: Objects, model: ClipModel, image: str, mask: Mask) -> None:
    data = objects.read(image, what="image", max_bytes=10**8).data
    decoded = decode_image(ImageFile(data, image), orientation="auto", count_fitting=lambda h, w: 1, max_pixels=10**8)
    height, width = decoded.pixels.shape[:2]
    for region in find_regions([mask], height=height, width=width, min_area=0, split_components=False):
        if isinstance(region, Region):
            crop = make_crop(decoded.pixels, region.box, region.bits, OPTIONS.views[0], transform=ClipTransform(224))
            model.encode_images(np.stack([crop]))
