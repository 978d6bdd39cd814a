"""Eleven architectures of all kinds, with random weights: crops, forwards beside open_clip's, and the service.

Also written as Markdown to ``build/models.md``, for docs/explanation/performance.md.
"""

from __future__ import annotations

import copy
import gc
import logging
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.console import Console

from bench.figures import Figures
from bench.forward import bare_forward
from bench.material import BUILD, jpeg, masks, photograph
from bench.service import encoded_mask, submit_and_wait
from bench.shares import Load, measure
from bench.stack import running_services, running_worker, upload
from bench.tables import show_table
from bench.turns import Measured, in_turn
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
FORWARD_COLUMNS: Final = (
    "images/core-second",
    "open_clip fp32",
    "ours fp32",
    "open_clip bf16",
    "ours bf16",
    "ratio fp32",
    "ratio bf16",
    "differs",
)
SERVICE_COLUMNS: Final = (
    "milliseconds per mask",
    "crop, fp32",
    "crop, bf16",
    "crop, `reference`",
    "forward, fp32",
    "service's share",
)
BATCH: Final = 8
MASKS: Final = 100
_TOLERANCE: Final = 1e-5
_CPU: Final = torch.device("cpu")

Forward = Callable[[], npt.NDArray[np.float32]]


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure every architecture: ``ratio`` is our time over open_clip's, the share that of the bare forward."""
    measured: dict[str, dict[str, float]] = {}
    with running_services() as services:
        image = upload(jpeg(photograph()), "models.jpg")
        for number, architecture in enumerate(ARCHITECTURES, 1):
            started = time.perf_counter()
            folder = random_weights(architecture)
            values, model = _forwards(architecture, folder, full=full)
            gc.collect()  # models are in cycles, and the worker needs their memory
            values["service_share"] = _service_share(services, folder, image, model, full=full)
            del model
            for name, value in values.items():
                figures[f"models.{architecture}.{name}"] = value
            measured[architecture] = values
            figures["models.worst_forward_ratio"] = max(one["forward_ratio"] for one in measured.values())
            figures["models.worst_service_share"] = min(one["service_share"] for one in measured.values())
            figures.save()  # a run that is stopped keeps what it has measured
            console.print(
                f"[dim]{number} of {len(ARCHITECTURES)}, {architecture}: {values['forward_ratio']:.2f} of open_clip's "
                f"time, service {values['service_share']:.0%}, {time.perf_counter() - started:.0f} s[/]"
            )
    speeds = ("open_clip_fp32", "ours_fp32", "open_clip_bf16", "ours_bf16")
    forwards = [
        (
            name,
            *(f"{values[f'{who}_per_core_s']:.3g}" for who in speeds),
            f"{values['forward_ratio']:.2f}",
            f"{values['forward_ratio_bf16']:.2f}",
            f"{values['difference']:.1g}",
        )
        for name, values in measured.items()
    ]
    masks_ms = [
        (
            name,
            *(f"{values[f'crop_{path}_ms']:.2f}" for path in ("fp32", "bf16", "reference")),
            f"{values['forward_ms']:.1f}",
            f"{values['service_share']:.0%}",
        )
        for name, values in measured.items()
    ]
    tables = [show_table(console, FORWARD_COLUMNS, forwards), show_table(console, SERVICE_COLUMNS, masks_ms)]
    page = BUILD / "models.md"
    page.write_text("\n".join(tables), "utf-8")
    console.print(f"As Markdown: {page}")


def random_weights(architecture: str) -> Path:
    """Return the folder of an architecture's random weights, which is written where it is not there yet."""
    folder = BUILD / "random-models" / architecture
    if not (folder / "open_clip_model.safetensors").exists():
        logging.disable(logging.WARNING)
        write_random_model(folder, architecture_config(architecture))
        logging.disable(logging.NOTSET)
    return folder


def _forwards(architecture: str, folder: Path, *, full: bool) -> tuple[dict[str, float], ClipModel]:
    """Return what is measured in this process on one thread, and the model in fp32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain = Reference.from_folder(folder)
    # The image tower alone: with text towers of a quarter of a million words, four models would fill the memory.
    visual, transform = plain.model.visual, plain.transform
    del plain
    half = copy.deepcopy(visual).to(torch.bfloat16)
    ours = load_model(folder, architecture="", device=_CPU)
    ours_half = load_model(folder, architecture="", device=_CPU, precision="bf16")
    crops = _crops(ours, BATCH)
    values = torch.stack([transform(Image.fromarray(crop)) for crop in crops])
    calls: dict[str, Forward] = {
        "open_clip_fp32": _plain(visual, values),
        "ours_fp32": lambda: ours.encode_images(crops),
        "open_clip_bf16": _plain(half, values.to(torch.bfloat16)),
        "ours_bf16": lambda: ours_half.encode_images(crops),
    }
    # The first call of each, which is slower; how many rounds there are goes by it.
    started = time.perf_counter()
    features = {name: call() for name, call in calls.items()}
    round_s = time.perf_counter() - started
    difference = float(np.abs(features["ours_fp32"] - features["open_clip_fp32"]).max())
    if difference > _TOLERANCE:
        raise AssertionError(f"{architecture} differs from open_clip's fp32 features by {difference:.2g}")
    taken = in_turn(calls, repeats=_times(60 if full else 15, round_s, most=9 if full else 5), warm_up=False)
    measured = {f"{name}_per_core_s": BATCH / one.cpu_s for name, one in taken.items()}
    measured["forward_ms"] = taken["ours_fp32"].cpu_s / BATCH * 1000
    measured["forward_ratio"] = _ratio(taken["ours_fp32"], taken["open_clip_fp32"])
    measured["forward_ratio_bf16"] = _ratio(taken["ours_bf16"], taken["open_clip_bf16"])
    measured["difference"] = difference
    measured |= {f"crop_{path}_ms": ms for path, ms in _crop_ms(ours, transform, full=full).items()}
    torch.set_num_threads(threads)
    return measured, ours


def _times(budget_s: float, once_s: float, *, most: int) -> int:
    """Return how often something that takes ``once_s`` is done in about ``budget_s``: twice or more."""
    return max(2, min(most, int(budget_s / once_s)))


def _ratio(ours: Measured, theirs: Measured) -> float:
    # Round by round: what other programs do to the caches meets both of a round.
    return statistics.median(one / other for one, other in zip(ours.cpu_rounds_s, theirs.cpu_rounds_s, strict=True))


def _plain(visual: Any, values: torch.Tensor) -> Forward:
    def forward() -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            features: npt.NDArray[np.float32] = torch.nn.functional.normalize(visual(values).float(), dim=-1).numpy()
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


def _service_share(services: LocalServices, folder: Path, image: str, model: ClipModel, *, full: bool) -> float:
    """Return the processor time of a bare forward, as a share of the worker's per mask; the median of the rounds."""
    crops = _crops(model, CROPS_PER_PASS * torch.get_num_threads())
    bare = Load(len(crops), partial(bare_forward(model), crops))
    job_s = bare.seconds(time.process_time)[0] * MASKS
    many = [encoded_mask(number, bits) for number, bits in enumerate(masks(MASKS))]
    options = ScoringOptions(prompts="demo")
    with running_worker(services, folder, prompts="demo", precision="fp32") as (client, worker):
        submit_and_wait(client, [Job(image=image, masks=many[:BATCH], options=options)])

        def jobs() -> dict[str, Load]:
            job = Job(image=image, masks=many, options=options)
            return {"job": Load(MASKS, partial(submit_and_wait, client, [job]))}

        rounds = _times(60 if full else 10, job_s, most=9 if full else 3)
        rates, _ = measure(jobs, bare, worker.pid, rounds=rounds)
    return rates["job"].cpu_share
