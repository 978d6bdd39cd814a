"""Eleven architectures of all kinds, with random weights: crops, forwards beside open_clip's, and the service.

Also written as Markdown to ``build/models.md``, for docs/explanation/performance.md.
"""

from __future__ import annotations

import gc
import logging
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.material import BUILD, jpeg, masks, photograph
from bench.service import encoded_mask, submit_and_wait
from bench.stack import cpu_seconds, running_services, running_worker, upload
from bench.turns import in_turn
from maskscore import Job, ScoringOptions
from maskscore.devstack import LocalServices
from maskscore.schema.job import View
from maskscore_worker.crops.cpu_cropper import make_crop
from maskscore_worker.model.clip import ClipModel, load_model
from maskscore_worker.model.cpu_threads import CROPS_PER_PASS
from random_models import architecture_config, write_random_model
from reference import Reference, treated

__all__ = ["random_weights", "run"]

ARCHITECTURES: Final = (
    "ViT-B-32",
    "ViT-B-16",
    "ViT-B-16-SigLIP2-256",
    "PE-Core-S-16-384",
    "PE-Core-B-16",
    "MobileCLIP2-S0",
    "MobileCLIP2-S2",
    "convnext_base_w",
    "RN50",
    "ViT-L-14",
    "EVA02-B-16",
)
COLUMNS: Final = (
    "architecture",
    "crop ms: fp32",
    "bf16",
    "`reference`",
    "open_clip fp32",
    "ours fp32",
    "open_clip bf16",
    "ours bf16",
    "time, fp32",
    "service",
    "difference",
)
BATCH: Final = 8
MASKS: Final = 100
_TOLERANCE: Final = 1e-5
_CPU: Final = torch.device("cpu")

Forward = Callable[[], npt.NDArray[np.float32]]


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure every architecture; ``time`` is ours over open_clip's, ``service`` its share of the bare forward."""
    rows: list[list[str]] = []
    ratios: list[float] = []
    shares: list[float] = []
    with running_services() as services:
        image = upload(jpeg(photograph()), "models.jpg")
        for architecture in ARCHITECTURES:
            started = time.perf_counter()
            folder = random_weights(architecture)
            measured = _forwards(architecture, folder, full=full)
            measured["service_share"] = _service_share(services, folder, image, full=full)
            for name, value in measured.items():
                figures[f"models.{architecture}.{name}"] = value
            figures.save()  # a run that is stopped keeps what it has measured
            ratios.append(measured["forward_ratio"])
            shares.append(measured["service_share"])
            rows.append(_row(architecture, measured))
            console.print(f"[dim]{' | '.join(rows[-1])} | {time.perf_counter() - started:.0f} s[/]")
            gc.collect()  # models are in cycles, and the next needs their memory
    figures["models.worst_forward_ratio"] = max(ratios)
    figures["models.worst_service_share"] = min(shares)
    table = Table(title="images per core-second by batches of 8; ours over open_clip's time; the service's share")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "architecture" else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    page = BUILD / "models.md"
    page.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), "utf-8")
    console.print(f"As Markdown: {page}")


def _row(architecture: str, measured: dict[str, float]) -> list[str]:
    speeds = ("open_clip_fp32", "ours_fp32", "open_clip_bf16", "ours_bf16")
    return [
        architecture,
        *(f"{measured[f'crop_{path}_ms']:.2f}" for path in ("fp32", "bf16", "reference")),
        *(f"{measured[f'{who}_per_core_s']:.3g}" for who in speeds),
        f"{measured['forward_ratio']:.2f}",
        f"{measured['service_share']:.0%}",
        f"{measured['difference']:.1g}",
    ]


def random_weights(architecture: str) -> Path:
    """Return the folder of an architecture's random weights, which is written where it is not there yet."""
    folder = BUILD / "random-models" / architecture
    if not (folder / "open_clip_model.safetensors").exists():
        logging.disable(logging.WARNING)
        write_random_model(folder, architecture_config(architecture))
        logging.disable(logging.NOTSET)
    return folder


def _forwards(architecture: str, folder: Path, *, full: bool) -> dict[str, float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain = Reference.from_folder(folder)
    half = Reference.from_folder(folder).model.to(torch.bfloat16)
    ours = load_model(folder, architecture="", device=_CPU)
    ours_half = load_model(folder, architecture="", device=_CPU, precision="bf16")
    crops = _crops(ours, BATCH)
    values = torch.stack([plain.transform(Image.fromarray(crop)) for crop in crops])
    calls: dict[str, Forward] = {
        "open_clip_fp32": _plain(plain.model, values),
        "ours_fp32": lambda: ours.encode_images(crops),
        "open_clip_bf16": _plain(half, values.to(torch.bfloat16)),
        "ours_bf16": lambda: ours_half.encode_images(crops),
    }
    # The first call of each, which is not measured.
    features = {name: call() for name, call in calls.items()}
    difference = float(np.abs(features["ours_fp32"] - features["open_clip_fp32"]).max())
    if difference > _TOLERANCE:
        raise AssertionError(f"{architecture} differs from open_clip's fp32 features by {difference:.2g}")
    taken = in_turn(calls, repeats=9 if full else 3, warm_up=False)
    measured = {f"{name}_per_core_s": BATCH / one.cpu_s for name, one in taken.items()}
    measured["forward_ratio"] = taken["ours_fp32"].cpu_s / taken["open_clip_fp32"].cpu_s
    measured["difference"] = difference
    measured |= {f"crop_{path}_ms": ms for path, ms in _crop_ms(ours, plain.transform, full=full).items()}
    torch.set_num_threads(threads)
    return measured


def _plain(model: Any, values: torch.Tensor) -> Forward:
    def forward() -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            features: npt.NDArray[np.float32] = torch.nn.functional.normalize(
                model.encode_image(values).float(), dim=-1
            ).numpy()
        return features

    return forward


def _crop_ms(model: ClipModel, transform: Any, *, full: bool) -> dict[str, float]:
    """Return milliseconds per mask of each path, from the decoded photo on, with the default view."""
    pixels, view, known = photograph(), View(treatment="original"), model.preprocessing.known
    parts = []
    for bits in masks(60 if full else 20):
        (ys, xs) = np.nonzero(bits)
        x, y, right, bottom = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
        parts.append(((x, y, right - x, bottom - y), np.ascontiguousarray(bits[y:bottom, x:right])))

    def fast(exact: bool) -> Callable[[], object]:
        return lambda: [make_crop(pixels, box, bits, view, transform=known, exact=exact) for box, bits in parts]

    def reference() -> object:
        return [
            transform(Image.fromarray(treated(pixels[y : y + height, x : x + width], bits, "original", 0.4)))
            for (x, y, width, height), bits in parts
        ]

    taken = in_turn({"fp32": fast(True), "bf16": fast(False), "reference": reference}, repeats=3)
    return {name: one.cpu_s / len(parts) * 1000 for name, one in taken.items()}


def _crops(model: ClipModel, count: int) -> npt.NDArray[np.uint8]:
    side = model.image_size
    return np.random.default_rng(3).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def _service_share(services: LocalServices, folder: Path, image: str, *, full: bool) -> float:
    """Return the processor time of a bare forward, as a share of the worker's per mask; the median of the rounds."""
    model = load_model(folder, architecture="", device=_CPU)
    cores, crops = torch.get_num_threads(), _crops(model, CROPS_PER_PASS)
    # As a busy worker runs it: on each core a pass of one thread. A pass of more waits for its threads, which counts.
    lanes = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))

    def bare_s() -> float:
        started = time.process_time()
        list(lanes.map(model.encode_images, [crops] * cores))
        return (time.process_time() - started) / (cores * len(crops))

    bare_s()
    many = [encoded_mask(number, bits) for number, bits in enumerate(masks(MASKS))]
    shares = []
    with lanes, running_worker(services, folder, prompts="demo", precision="fp32") as (client, worker):
        options = ScoringOptions(prompts="demo")
        submit_and_wait(client, [Job(image=image, masks=many[:BATCH], options=options)])
        for _ in range(3 if full else 1):
            bare, before = bare_s(), cpu_seconds(worker.pid)
            submit_and_wait(client, [Job(image=image, masks=many, options=options)])
            used = cpu_seconds(worker.pid) - before
            # The job takes its time, in which the machine changes: before it and after it.
            shares.append((bare + bare_s()) / 2 / (used / MASKS))
    return statistics.median(shares)
