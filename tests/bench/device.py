"""The device path: crops of a batch made at once, the forward at fixed sizes, and the whole corridor before them.

On a GPU: masks per second of each, and of jobs end to end in one process (fetched from a file, decoded, cropped,
encoded and scored by as many task threads as a worker has; no Redis, no S3), as a share of the bare forward. Without a
GPU the same code runs on the CPU, with small pictures and the demo's small model, to be compared with the CPU path.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.material import full_size_weights, jpeg, masks, photograph
from bench.turns import in_turn
from maskscore.imaging import ClipTransform
from maskscore.ledger import Claim
from maskscore.masks import encode_mask
from maskscore.schema.job import Job, Mask, ScoringOptions, View
from maskscore.settings import WorkerSettings
from maskscore_worker.crops import torch_ops
from maskscore_worker.crops.cpu_cropper import CpuCropper
from maskscore_worker.crops.device_cropper import DeviceCropper
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.masks.regions import Region, find_regions
from maskscore_worker.model.clip import load_model
from maskscore_worker.model.cuda_graphs import CudaGraphEncoder, graph_batch_sizes
from maskscore_worker.pipeline import Pipeline, load_pipeline
from maskscore_worker.telemetry.stage_timer import StageTimer

__all__ = ["run"]

SIZE = 224
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: a photo's height and width, masks in it, jobs per load, repeats, and with what model."""

    photo: tuple[int, int]
    small_photo: tuple[int, int]
    count: int
    large_jobs: int
    small_jobs: int
    repeats: int
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    weights: Path


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure on the first GPU where there is one, else on one core of the CPU."""
    threads = torch.get_num_threads()
    try:
        _run(console, figures, full=full)
    finally:
        torch.set_num_threads(threads)


def _run(console: Console, figures: Figures, *, full: bool) -> None:
    if torch.cuda.is_available():
        device = torch.device("cuda", 0)
        console.print(f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}")
        batches, threads, weights = (1, 8, 32, 64, 128, 256), (4, 8, 16), full_size_weights()
        jobs = (64, 600, 20) if full else (24, 200, 5)
        scale = Scale((1500, 2250), (480, 640), 100, *jobs, batches, threads, weights)
    else:
        device = torch.device("cpu")
        console.print("There is no GPU here: the device's code runs on a core of the CPU, only to be compared.")
        jobs = (4, 30, 5) if full else (2, 10, 3)
        scale = Scale((300, 450), (120, 160), 16, *jobs, (1, 8), (2,), DEMO_WEIGHTS)
        torch.set_num_threads(1)
    prefix = "device" if device.type == "cuda" else "device.on_cpu"
    _crops(console, figures, device, scale, prefix)
    for precision in ("bf16", "fp32") if full or device.type == "cpu" else ("bf16",):
        _end_to_end(console, figures, device, precision, scale, prefix)


def _crops(console: Console, figures: Figures, device: torch.device, scale: Scale, prefix: str) -> None:
    shape, count = scale.photo, scale.count
    pixels = photograph(*shape).copy()
    drawn = _masks(count, shape)
    found = find_regions(drawn, height=shape[0], width=shape[1], min_area=0, split_components=False)
    regions = [region for region in found if isinstance(region, Region)]
    view = View()
    cropper, plain = DeviceCropper(ClipTransform(SIZE), device), DeviceCropper(ClipTransform(SIZE), device)
    plain.make_crops = torch_ops.make_crops
    opened = cropper.open(pixels)
    makers: dict[str, Callable[[], Any]] = {
        "CPU path, fp32": _maker(CpuCropper(ClipTransform(SIZE), exact=True).open(pixels), regions, view),
        "CPU path, bf16": _maker(CpuCropper(ClipTransform(SIZE), exact=False).open(pixels), regions, view),
        "device, PyTorch": _maker(plain.open(pixels), regions, view),
    }
    if cropper.make_crops is not torch_ops.make_crops:
        makers["device, Triton"] = _maker(opened, regions, view)
    makers["device, with the upload"] = lambda: _maker(cropper.open(pixels), regions, view)()
    expected = makers["CPU path, fp32"]().astype(int)
    worst = 0
    for name, make in makers.items():
        made = make()
        made = made.cpu().numpy() if isinstance(made, torch.Tensor) else made
        difference = int(np.abs(made - expected).max())
        if difference > 2:
            raise AssertionError(f"{name}: crops differ from the CPU path's by {difference} grey levels")
        if name.startswith("device"):
            worst = max(worst, difference)
    measured = in_turn(makers, repeats=scale.repeats, warm_up=False)
    table = Table(
        title=f"crops of {count} masks of {shape[1]} x {shape[0]} pixels, from runs to {SIZE} x {SIZE}",
        caption=f"the device's crops differ from the CPU path's by {worst} grey levels at most",
    )
    for column in ("made by", "ms per mask", "masks/s"):
        table.add_column(column, justify="left" if column == "made by" else "right")
    for name, taken in measured.items():
        table.add_row(name, f"{taken.wall_s / count * 1000:.3f}", f"{count / taken.wall_s:,.0f}")
        key = name.lower().replace(",", "").replace(" ", "_").removeprefix("device_")
        figures[f"{prefix}.crops_{key}_ms"] = taken.wall_s / count * 1000
    figures[f"{prefix}.crops_largest_difference"] = worst
    console.print(table)


def _maker(opened: Any, regions: list[Region], view: View) -> Callable[[], Any]:
    return lambda: opened.make(regions, view, lambda: None)


def _end_to_end(
    console: Console, figures: Figures, device: torch.device, precision: Precision, scale: Scale, prefix: str
) -> None:
    bare = _bare_forward(console, figures, device, precision, scale, prefix)
    table = Table(title=f"masks per second end to end in one process, {precision}")
    for column in ("load", "task threads", "masks/s", "share of the bare forward"):
        table.add_column(column, justify="left" if column == "load" else "right")
    table.add_row("bare forward", "", f"{bare:,.0f}", "")
    with tempfile.TemporaryDirectory() as folder:
        loads = {
            "large": _load(Path(folder), "large", scale.photo, (scale.count,), jobs=scale.large_jobs),
            "small": _load(Path(folder), "small", scale.small_photo, (1, 2, 3, 4, 5), jobs=scale.small_jobs),
        }
        for threads in scale.threads:
            settings = WorkerSettings(
                weights=scale.weights,
                device=str(device),
                precision=precision,
                crop_device="device",
                prompts="demo",
                file_roots=(Path(folder),),
                max_batch=scale.batches[-1],
                concurrency=threads,
            )
            with load_pipeline(settings, worker="bench") as pipeline:
                for name, jobs in loads.items():
                    rates = [_masks_per_s(pipeline, jobs, threads) for _ in range(4)]
                    rate = statistics.median(rates[1:])
                    table.add_row(f"{name} jobs", str(threads), f"{rate:,.0f}", f"{rate / bare:.0%}")
                    figures[f"{prefix}.{precision}_{name}_{threads}_masks_per_s"] = rate
                    figures[f"{prefix}.{precision}_{name}_{threads}_share"] = rate / bare
    console.print(table)


def _masks_per_s(pipeline: Pipeline, jobs: list[Job], threads: int) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(lambda job: pipeline.score(job, _claim(job), _never, StageTimer()), jobs))
    scored = sum(part.skipped is None for result in done for part in result.components)
    if scored != sum(len(list(job.masks)) for job in jobs):
        raise AssertionError("not all masks were scored")
    return scored / (time.perf_counter() - started)


def _bare_forward(
    console: Console, figures: Figures, device: torch.device, precision: Precision, scale: Scale, prefix: str
) -> float:
    """Return the images per second of the tower alone, its crops on the device already, at its best batch size."""
    model = load_model(scale.weights, architecture="ViT-B-32", device=device, precision=precision)
    shape = (model.image_size, model.image_size, 3)
    sizes = graph_batch_sizes(scale.batches[-1])
    forward = CudaGraphEncoder(model.image_tower, shape=shape, dtype=torch.uint8, device=device, sizes=sizes)
    # To be compared, not to depend on: it wants a C compiler and minutes.
    compiled = torch.compile(model.image_tower) if device.type == "cuda" else None
    table = Table(title=f"{model.architecture}, images per second, {precision}")
    for column in ("batch", "eager", "fixed sizes", "compiled"):
        table.add_column(column, justify="right")
    best = 0.0
    for size in scale.batches:
        crops = torch.randint(0, 256, (size, *shape), dtype=torch.uint8, device=device)
        towers: dict[str, Callable[[], Any]] = {
            "eager": _tower(model.image_tower, crops),
            "fixed": partial(forward.encode, crops),
        }
        try:
            if compiled:
                _tower(compiled, crops)()
                towers["compiled"] = _tower(compiled, crops)
        except Exception as error:
            console.print(f"torch.compile: {type(error).__name__}")
        measured = in_turn(towers, repeats=scale.repeats)
        rates = {name: size / taken.wall_s for name, taken in measured.items()}
        shown = [f"{rates[name]:,.0f}" if name in rates else "-" for name in ("eager", "fixed", "compiled")]
        table.add_row(str(size), *shown)
        for name, rate in rates.items():
            figures[f"{prefix}.{precision}_forward_{name}_{size}_per_s"] = rate
        best = max(best, *rates.values())
    console.print(table)
    return best


def _tower(tower: Callable[[torch.Tensor], torch.Tensor], crops: torch.Tensor) -> Callable[[], Any]:
    def call() -> Any:
        with torch.inference_mode():
            return tower(crops).cpu()

    return call


def _load(folder: Path, name: str, shape: tuple[int, int], counts: tuple[int, ...], *, jobs: int) -> list[Job]:
    """Return jobs of one photo, with as many masks in turn as ``counts`` says."""
    path = folder / f"{name}.jpg"
    path.write_bytes(jpeg(photograph(*shape)))
    options = ScoringOptions(prompts="demo")
    drawn = _masks(max(counts) + 20, shape)
    return [
        Job(image=path.as_uri(), masks=drawn[number % 20 :][: counts[number % len(counts)]], options=options)
        for number in range(jobs)
    ]


def _masks(count: int, shape: tuple[int, int]) -> list[Mask]:
    drawn = masks(count, height=shape[0], width=shape[1])
    return [Mask(id=str(number), segmentation=encode_mask(bits)) for number, bits in enumerate(drawn)]


def _claim(job: Job) -> Claim:
    now = datetime.now(UTC)
    return Claim(job.job_id, "token", 1, 0, b"", now, now)


def _never() -> None:
    return None
