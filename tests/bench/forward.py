"""The bare forward: images per second by batch size, as open_clip runs it, as the worker runs it, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from bench.figures import Figures
from bench.material import full_size_weights
from bench.turns import in_turn
from maskscore_worker.model.clip import ClipModel, load_model
from maskscore_worker.model.cpu_threads import CROPS_PER_PASS

__all__ = ["bare_forward", "load_full_size", "random_crops", "run"]

Crops = npt.NDArray[np.uint8]
_TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure every alternative at every batch size."""
    models = {name: load_full_size(name) for name in ("fp32", "bf16")}
    plain = {"fp32": _open_clip(torch.float32), "bf16": _open_clip(torch.bfloat16)}
    sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256) if full else (1, 8, 32)
    table = Table(title=f"ViT-B-32, images per second, {torch.get_num_threads()} cores (in brackets: per core-second)")
    table.add_column("batch", justify="right")
    columns = [f"{who} {name}" for name in models for who in ("open_clip", "worker", "lanes")]
    compiled = _compiled(plain["fp32"]) if full else None
    for column in [*columns, *(["compiled fp32"] if compiled else [])]:
        table.add_column(column, justify="right")
    best: dict[str, float] = {}
    for size in sizes:
        crops = random_crops(size)
        calls: dict[str, Callable[[], Any]] = {}
        for name, model in models.items():
            calls[f"open_clip {name}"] = _plain_call(plain[name], model, crops)
            calls[f"worker {name}"] = _call(model.encode_images, crops)
            calls[f"lanes {name}"] = _call(bare_forward(model), crops)
            for who in ("worker", "lanes"):
                difference = float(np.abs(calls[f"{who} {name}"]() - calls["open_clip fp32"]()).max())
                if difference > _TOLERANCE[name]:
                    raise AssertionError(f"{who} {name} differs from open_clip's fp32 features by {difference:.2g}")
        if compiled:
            calls["compiled fp32"] = _plain_call(compiled, models["fp32"], crops)
            calls["compiled fp32"]()
        measured = in_turn(calls, repeats=max(1, min(5, (64 if full else 24) // size)), warm_up=False)
        table.add_row(str(size), *(f"{size / m.wall_s:.1f} ({size / m.cpu_s:.1f})" for m in measured.values()))
        for name, taken in measured.items():
            key = f"forward.{name.replace(' ', '_')}"
            figures[f"{key}_{size}_per_s"] = size / taken.wall_s
            figures[f"{key}_{size}_per_core_s"] = size / taken.cpu_s
            best[name] = max(best.get(name, 0.0), size / taken.cpu_s)
    console.print(table)
    for name in models:
        figures[f"forward.{name}_over_open_clip"] = best[f"worker {name}"] / best[f"open_clip {name}"]
    figures["forward.bf16_over_fp32"] = best["worker bf16"] / best["worker fp32"]


def load_full_size(precision: Any) -> ClipModel:
    """Return the full-size model with random weights on the CPU."""
    return load_model(full_size_weights(), architecture="ViT-B-32", device=torch.device("cpu"), precision=precision)


def random_crops(count: int) -> Crops:
    """Return ``(count, 224, 224, 3)`` uint8."""
    return np.random.default_rng(3).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


def bare_forward(model: ClipModel) -> Callable[[Crops], npt.NDArray[np.float32]]:
    """Return the forward as a busy worker runs it, with nothing around it: on each core passes of one thread."""
    threads = ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,))

    def forward(crops: Crops) -> npt.NDArray[np.float32]:
        slices = [crops[start : start + CROPS_PER_PASS] for start in range(0, len(crops), CROPS_PER_PASS)]
        return np.concatenate(list(threads.map(model.encode_images, slices)))

    return forward


def _call(encode: Callable[[Crops], Any], crops: Crops) -> Callable[[], Any]:
    return lambda: encode(crops)


def _open_clip(dtype: torch.dtype) -> Any:
    model = open_clip.create_model("ViT-B-32", pretrained=None)
    model.load_state_dict(load_file(full_size_weights() / "open_clip_model.safetensors"))
    return model.eval().visual.to(dtype)


def _compiled(tower: Any) -> Any:
    import torch._inductor.config as inductor

    inductor.freezing = True
    return torch.compile(tower)


def _plain_call(tower: Any, model: ClipModel, crops: Crops) -> Callable[[], Any]:
    preprocessing = model.preprocessing
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    dtype = next(tower.parameters()).dtype
    values = ((torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - mean) / std).to(dtype).contiguous()

    def call() -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            features = torch.nn.functional.normalize(tower(values).float(), dim=-1)
        array: npt.NDArray[np.float32] = features.numpy()
        return array

    return call
