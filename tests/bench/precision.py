"""What each precision does to the probabilities: the demo model under every view, and several architectures on photos.

The demo model's ``logit_scale`` is low; released CLIPs stand at ln 100, where the same error of a cosine moves a
probability the most. So both are shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from bench.crops import coco_mini
from bench.figures import Figures
from bench.material import BUILD, COCO_MINI
from bench.models import random_weights
from bench.tables import show_table
from bench.turns import in_turn
from maskscore.masks import count_fitting
from maskscore.prompts import load_builtin
from maskscore.schema.job import Frame, Treatment, View
from maskscore.settings import WorkerSettings
from maskscore_worker.crops.cpu_cropper import make_crop
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from maskscore_worker.inputs.images import ImageFile, decode_image
from maskscore_worker.masks.regions import Region, find_regions
from maskscore_worker.model.clip import ClipModel, load_model
from maskscore_worker.model.cpu_threads import CROPS_PER_PASS
from maskscore_worker.model.precision import ImagePrecision
from maskscore_worker.model.split_product import can_split
from maskscore_worker.pipeline.precision_check import CLIP_SCALE, compare_scores, measure_precisions

__all__ = ["run"]

Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]
Masks = list[tuple[Pixels, tuple[int, int, int, int], npt.NDArray[np.bool_]]]

_CPU = torch.device("cpu")
VIEWS = [View(treatment=treatment, frame=frame) for treatment, frame in product(get_args(Treatment), get_args(Frame))]
ARCHITECTURES = ("ViT-B-32", "ViT-B-16", "RN50", "MobileCLIP2-S0", "ViT-B-16-SigLIP2-256")
COLUMNS = ("architecture", "precision", "speed ratio", "largest", "> 0.01", "> 0.03", "multipliers")


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Score the same masks in all precisions, each with its own crops, as a worker does."""
    _compare_demo_model(console, figures, full=full)
    _compare_architectures(console, figures, ARCHITECTURES if full else ARCHITECTURES[:3], full=full)


def _compare_demo_model(console: Console, figures: Figures, *, full: bool) -> None:
    # fp16 is of GPUs, but its numbers are the same on a CPU, slowly.
    names: list[ImagePrecision] = ["fp32", "mixed", "fp16", "bf16"] if can_split() else ["fp32", "fp16", "bf16"]
    models = {name: load_model(DEMO_WEIGHTS, architecture="", device=_CPU, precision=name) for name in names}
    sets = {"scenes": list(_scenes(40 if full else 8))}
    if COCO_MINI.is_dir():
        sets["coco"] = list(_photos())
    prompts = load_builtin("demo")
    texts = models["fp32"].encode_texts(prompts.texts)
    table = Table(title=f"against fp32, the demo model, every probability of every mask under {len(VIEWS)} views")
    for column in ("masks", "precision", "scale", "scores", "largest", "above 0.01", "above 0.03", "other multiplier"):
        table.add_column(column, justify="left" if column in ("masks", "precision") else "right")
    for name, masks in sets.items():
        features = {
            key: np.concatenate([_features(model, masks, view) for view in VIEWS]) for key, model in models.items()
        }
        exact = features.pop("fp32")
        for precision, ours in features.items():
            for label, scale in (("own", models["fp32"].logit_scale), ("clip", CLIP_SCALE)):
                found = compare_scores(exact, ours, texts, prompts, logit_scale=scale)
                if not 0 < found.largest < 0.5:
                    raise AssertionError(f"{precision} moves a probability by {found.largest}")
                counts = (found.above_0_01, found.above_0_03, found.multipliers)
                table.add_row(
                    name, precision, f"{scale:.1f}", str(len(exact)), f"{found.largest:.4f}", *map(str, counts)
                )
                # bf16's keys are older than the other precisions.
                key = f"precision.{'' if precision == 'bf16' else f'{precision}_'}{name}_{label}"
                figures[f"{key}_max"] = found.largest
                figures[f"{key}_scores"] = len(exact)
                figures[f"{key}_above"] = found.above_0_03
                figures[f"{key}_above_0_01"] = found.above_0_01
                figures[f"{key}_multipliers_changed"] = found.multipliers
    console.print(table)


def _compare_architectures(console: Console, figures: Figures, architectures: Sequence[str], *, full: bool) -> None:
    """Measure what ``weights check --precision`` does, with random weights, at the scale of released CLIPs."""
    rows = []
    for architecture in architectures:
        report = measure_precisions(WorkerSettings(weights=random_weights(architecture), device="cpu"), None)
        speeds = _speeds_over_fp32(architecture, [row.served for row in report.precisions], rounds=9 if full else 3)
        for row in report.precisions[1:]:
            found, ratio = row.differences[-1], speeds[row.served]
            shares = [count / report.crops for count in (found.above_0_01, found.above_0_03)]
            rows.append(
                (
                    architecture,
                    row.precision if row.served == row.precision else f"{row.precision} (as {row.served})",
                    f"{ratio:.2f}",
                    f"{found.largest:.4f}",
                    *(f"{share:.1%}" for share in shares),
                    str(found.multipliers),
                )
            )
            key = f"precision.{architecture}.{row.precision}"
            figures[f"{key}_speed_over_fp32"] = ratio
            figures[f"{key}_max"] = found.largest
            figures[f"{key}_share_above_0_01"], figures[f"{key}_share_above_0_03"] = shares
            figures[f"{key}_multipliers_changed"] = found.multipliers
        figures.save()
        console.print(f"[dim]{architecture}: {report.crops} crops of {report.photos}, at a scale of {CLIP_SCALE:g}[/]")
    page = BUILD / "precision.md"
    page.write_text(show_table(console, COLUMNS, rows, left=2), "utf-8")
    console.print(f"As Markdown: {page}")


def _speeds_over_fp32(architecture: str, names: Sequence[ImagePrecision], *, rounds: int) -> dict[str, float]:
    """Return, by precision, how many times as fast as fp32 the forward of 8 crops is on one thread; all in turn."""
    folder, threads = random_weights(architecture), torch.get_num_threads()
    torch.set_num_threads(1)
    models = {name: load_model(folder, architecture="", device=_CPU, precision=name) for name in dict.fromkeys(names)}
    side = models["fp32"].image_size
    crops = np.random.default_rng(3).integers(0, 256, (CROPS_PER_PASS, side, side, 3), dtype=np.uint8)
    taken = in_turn({name: partial(model.encode_images, crops) for name, model in models.items()}, repeats=rounds)
    torch.set_num_threads(threads)
    return {
        name: statistics.median(
            exact / own for exact, own in zip(taken["fp32"].cpu_rounds_s, one.cpu_rounds_s, strict=True)
        )
        for name, one in taken.items()
    }


def _features(model: ClipModel, masks: Masks, view: View) -> Features:
    transform, exact = model.preprocessing.known, model.precision != "bf16"
    crops = np.stack(
        [make_crop(pixels, box, bits, view, transform=transform, exact=exact) for pixels, box, bits in masks]
    )
    return np.concatenate([model.encode_images(crops[at : at + 64]) for at in range(0, len(crops), 64)])


def _scenes(count: int) -> Iterator[tuple[Pixels, tuple[int, int, int, int], npt.NDArray[np.bool_]]]:
    for seed in range(550_000, 550_000 + count):
        scene = draw_scene(seed)
        for mask in scene.masks:
            rows, columns = np.nonzero(mask.mask)
            x, y = int(columns.min()), int(rows.min())
            bits = np.ascontiguousarray(mask.mask[y : int(rows.max()) + 1, x : int(columns.max()) + 1])
            yield scene.image, (x, y, bits.shape[1], bits.shape[0]), bits


def _photos() -> Iterator[tuple[Pixels, tuple[int, int, int, int], npt.NDArray[np.bool_]]]:
    for data, masks in coco_mini():
        fitting = partial(count_fitting, masks)
        pixels = decode_image(
            ImageFile(data, ""), orientation="auto", count_fitting=fitting, max_pixels=100_000_000
        ).pixels
        height, width = pixels.shape[:2]
        for region in find_regions(masks, height=height, width=width, min_area=1, split_components=False):
            if isinstance(region, Region):
                yield pixels, region.box, region.bits
