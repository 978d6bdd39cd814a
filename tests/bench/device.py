"""The device path: crops of a batch made at once, the forward at fixed sizes, and the whole corridor before them.

On a GPU: masks per second of each, and of jobs end to end in one process (fetched from a file, decoded, cropped, encoded
and scored by as many task threads as a worker has; no Redis, no S3), as a share of the bare forward. Without one: the
same code on the CPU at a small size, against the CPU path, and whether both agree.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.material import full_size_weights, jpeg, masks, photograph
from bench.turns import in_turn
from maskscore.job import Job, Mask, ScoringOptions
from maskscore.ledger import Claim
from maskscore.masks import encode_mask
from maskscore.settings import WorkerSettings
from maskscore_worker import crops_torch
from maskscore_worker.croppers import HostCropper
from maskscore_worker.crops_device import DeviceCropper
from maskscore_worker.forward import Forward, fixed_sizes
from maskscore_worker.main import load_pipeline
from maskscore_worker.model import load_model
from maskscore_worker.regions import Region, find_regions

__all__ = ["run"]

SIZE = 224
Precision = Literal["fp32", "bf16"]


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure on the first GPU where there is one, else on the CPU."""
    if torch.cuda.is_available():
        device = torch.device("cuda", 0)
        console.print(f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}")
        _crops(console, figures, device, shape=(1500, 2250), count=100, repeats=20 if full else 5)
        for precision in ("bf16", "fp32") if full else ("bf16",):
            _end_to_end(console, figures, device, precision, full=full)
    else:
        console.print("There is no GPU here: the device's code runs on the CPU, only to be compared.")
        shape, count = ((750, 1125), 60) if full else ((300, 450), 16)
        _crops(console, figures, torch.device("cpu"), shape=shape, count=count, repeats=3)


def _crops(
    console: Console, figures: Figures, device: torch.device, *, shape: tuple[int, int], count: int, repeats: int
) -> None:
    pixels = photograph(*shape)
    drawn = _masks(count, shape)
    found = find_regions(drawn, height=shape[0], width=shape[1], min_area=0, split_components=False)
    regions = [region for region in found if isinstance(region, Region)]
    options = ScoringOptions()
    cropper, plain = DeviceCropper(SIZE, device), DeviceCropper(SIZE, device)
    plain.make_crops = crops_torch.make_crops
    opened = cropper.open(pixels)
    makers: dict[str, Callable[[], Any]] = {
        "CPU path, fp32": _maker(HostCropper(SIZE, exact=True).open(pixels), regions, options),
        "CPU path, bf16": _maker(HostCropper(SIZE, exact=False).open(pixels), regions, options),
        "device, PyTorch": _maker(plain.open(pixels), regions, options),
    }
    if cropper.make_crops is not crops_torch.make_crops:
        makers["device, Triton"] = _maker(opened, regions, options)
    makers["device, with the upload"] = lambda: _maker(cropper.open(pixels), regions, options)()
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
    measured = in_turn(makers, repeats=repeats, warm_up=False)
    table = Table(
        title=f"crops of {count} masks of {shape[1]} x {shape[0]} pixels, from runs to {SIZE} x {SIZE}",
        caption=f"the device's crops differ from the CPU path's by {worst} grey levels at most",
    )
    for column in ("made by", "ms per mask", "masks/s"):
        table.add_column(column, justify="left" if column == "made by" else "right")
    prefix = "device" if device.type == "cuda" else "device.on_cpu"
    for name, taken in measured.items():
        table.add_row(name, f"{taken.wall_s / count * 1000:.3f}", f"{count / taken.wall_s:,.0f}")
        key = name.lower().replace(",", "").replace(" ", "_").removeprefix("device_")
        figures[f"{prefix}.crops_{key}_ms"] = taken.wall_s / count * 1000
    figures[f"{prefix}.crops_largest_difference"] = worst
    console.print(table)


def _maker(opened: Any, regions: list[Region], options: ScoringOptions) -> Callable[[], Any]:
    return lambda: opened.make(regions, options, lambda: None)


def _end_to_end(console: Console, figures: Figures, device: torch.device, precision: Precision, *, full: bool) -> None:
    bare = _bare_forward(console, figures, device, precision)
    table = Table(title=f"masks per second end to end in one process, ViT-B/32 at full size, {precision}")
    for column in ("load", "task threads", "masks/s", "share of the bare forward"):
        table.add_column(column, justify="left" if column == "load" else "right")
    table.add_row("bare forward", "", f"{bare:,.0f}", "")
    with tempfile.TemporaryDirectory() as folder:
        loads = {
            "large": _load(Path(folder), "large", (1500, 2250), [100], jobs=64 if full else 24),
            "small": _load(Path(folder), "small", (480, 640), [1, 2, 3, 4, 5], jobs=600 if full else 200),
        }
        for threads in (4, 8, 16):
            settings = WorkerSettings(
                weights=full_size_weights(),
                device=str(device),
                precision=precision,
                prompts="demo",
                file_roots=(Path(folder),),
                max_batch=256,
                concurrency=threads,
            )
            with load_pipeline(settings, worker="bench") as pipeline:
                for name, jobs in loads.items():
                    rates = []
                    for _ in range(4):
                        started = time.perf_counter()
                        with ThreadPoolExecutor(threads) as pool:
                            done = list(pool.map(lambda job: pipeline.run(job, _claim(job), _never), jobs))
                        scored = sum(part.skipped is None for result in done for part in result.components)
                        rates.append(scored / (time.perf_counter() - started))
                    rate = statistics.median(rates[1:])
                    table.add_row(f"{name} jobs", str(threads), f"{rate:,.0f}", f"{rate / bare:.0%}")
                    figures[f"device.{precision}_{name}_{threads}_masks_per_s"] = rate
                    figures[f"device.{precision}_{name}_{threads}_share"] = rate / bare
    console.print(table)


def _bare_forward(console: Console, figures: Figures, device: torch.device, precision: Precision) -> float:
    """Return the images per second of the tower alone, its crops on the device already, at its best batch size."""
    model = load_model(full_size_weights(), architecture="ViT-B-32", device=device, precision=precision)
    forward = Forward(
        model.image_tower, shape=(SIZE, SIZE, 3), dtype=torch.uint8, device=device, sizes=fixed_sizes(256)
    )
    compiled = torch.compile(model.image_tower)
    table = Table(title=f"ViT-B/32, images per second, {precision}")
    for column in ("batch", "one call after the other", "CUDA graph", "torch.compile"):
        table.add_column(column, justify="right")
    best = 0.0
    for size in (1, 8, 32, 64, 128, 256):
        crops = torch.randint(0, 256, (size, SIZE, SIZE, 3), dtype=torch.uint8, device=device)
        towers = {"eager": _tower(model.image_tower, crops), "graph": lambda: forward.encode(crops)}  # noqa: B023
        try:
            _tower(compiled, crops)()
            towers["compiled"] = _tower(compiled, crops)
        except Exception as error:  # it wants a C compiler; to be compared, not to depend on
            console.print(f"torch.compile: {type(error).__name__}")
        measured = in_turn(towers, repeats=20)
        rates = {name: size / taken.wall_s for name, taken in measured.items()}
        table.add_row(str(size), *(f"{rates[name]:,.0f}" if name in rates else "-" for name in towers))
        for name, rate in rates.items():
            figures[f"device.{precision}_forward_{name}_{size}_per_s"] = rate
        best = max(best, rates["graph"])
    console.print(table)
    return best


def _tower(tower: Callable[[torch.Tensor], torch.Tensor], crops: torch.Tensor) -> Callable[[], Any]:
    def call() -> Any:
        with torch.inference_mode():
            return tower(crops).cpu()

    return call


def _load(folder: Path, name: str, shape: tuple[int, int], counts: list[int], *, jobs: int) -> list[Job]:
    path = folder / f"{name}.jpg"
    path.write_bytes(jpeg(photograph(*shape)))
    drawn = _masks(max(100, *counts) if name == "large" else 40, shape)
    options = ScoringOptions(prompts="demo")
    return [
        Job(image=path.as_uri(), masks=drawn[at : at + counts[number % len(counts)]], options=options)
        for number in range(jobs)
        for at in [0 if name == "large" else number % 35]
    ]


def _masks(count: int, shape: tuple[int, int]) -> list[Mask]:
    drawn = masks(count, height=shape[0], width=shape[1])
    return [Mask(id=str(number), segmentation=encode_mask(bits)) for number, bits in enumerate(drawn)]


def _claim(job: Job) -> Claim:
    now = datetime.now(UTC)
    return Claim(job.job_id, "token", 1, 0, b"", now, now)


def _never() -> None:
    return None
