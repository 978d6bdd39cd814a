"""What bf16 does to the probabilities: the demo model under every view, on drawn scenes and on the shared photos.

The demo model's ``logit_scale`` is low; released CLIPs stand at ln 100, where the same error of a cosine moves a
probability the most. So both are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from bench.material import COCO_MINI
from maskscore.masks import count_fitting
from maskscore.prompts import load_builtin
from maskscore.schema.job import Frame, ScoringOptions, Treatment, View
from maskscore.schema.prompt_set import PromptSet
from maskscore_worker.crops.cpu_cropper import make_crop
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from maskscore_worker.inputs.images import decode_image
from maskscore_worker.masks.regions import Region, find_regions
from maskscore_worker.model.clip import ClipModel, load_model
from maskscore_worker.scoring import Scores, score

__all__ = ["run"]

Pixels = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]
Masks = list[tuple[Pixels, tuple[int, int, int, int], npt.NDArray[np.bool_]]]

CLIP_SCALE = 100.0
VIEWS = [View(treatment=treatment, frame=frame) for treatment, frame in product(get_args(Treatment), get_args(Frame))]


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Score the same masks in both precisions, each with its own crops, as a worker does."""
    cpu = torch.device("cpu")
    models = {name: load_model(DEMO_WEIGHTS, architecture="", device=cpu, precision=name) for name in ("fp32", "bf16")}
    sets = {"scenes": list(_scenes(40 if full else 8))}
    if COCO_MINI.is_dir():
        sets["coco"] = list(_photos())
    prompts = load_builtin("demo")
    table = Table(title=f"bf16 against fp32, the demo model, every probability of every mask under {len(VIEWS)} views")
    for column in ("masks", "scale", "scores", "largest", "99th percentile", "masks above 0.03", "other multiplier"):
        table.add_column(column, justify="left" if column == "masks" else "right")
    for name, masks in sets.items():
        features = {
            precision: np.concatenate([_features(model, masks, view) for view in VIEWS])
            for precision, model in models.items()
        }
        for label, scale in (("own", models["fp32"].logit_scale), ("clip", CLIP_SCALE)):
            exact, ours = (_scored(model, features[key], prompts, scale) for key, model in models.items())
            differences = [_differences(*pair) for pair in zip(exact, ours, strict=True)]
            multipliers = sum(a.semantic_multiplier != b.semantic_multiplier for a, b in zip(exact, ours, strict=True))
            largest = max(map(max, differences))
            p99 = float(np.percentile(np.concatenate(differences), 99))
            above = sum(max(own) > 0.03 for own in differences)
            if not 0 < largest < 0.5:
                raise AssertionError(f"bf16 moves a probability by {largest}")
            counts = (str(len(exact)), f"{largest:.4f}", f"{p99:.4f}", str(above), str(multipliers))
            table.add_row(name, f"{scale:.1f}", *counts)
            key = f"precision.{name}_{label}"
            figures[f"{key}_max"] = largest
            figures[f"{key}_p99"] = p99
            figures[f"{key}_scores"] = len(exact)
            figures[f"{key}_above"] = above
            figures[f"{key}_multipliers_changed"] = multipliers
    console.print(table)


def _differences(exact: Scores, ours: Scores) -> list[float]:
    """Differences of each prompt's probability, and of the groups' sums."""
    given = {entry.text: entry.score for entry in ours.top_k or []}
    sums = [(exact.p_pos_sum, ours.p_pos_sum), (exact.p_neg_sum, ours.p_neg_sum)]
    return [
        *(abs(entry.score - given[entry.text]) for entry in exact.top_k or []),
        *(abs(a - b) for a, b in sums if a is not None and b is not None),
    ]


def _scored(model: ClipModel, features: Features, prompts: PromptSet, scale: float) -> list[Scores]:
    options = ScoringOptions(top_k=len(prompts.texts))
    return score(features, model.encode_texts(prompts.texts), prompts, logit_scale=scale, options=options)


def _features(model: ClipModel, masks: Masks, view: View) -> Features:
    transform, exact = model.preprocessing.known, model.precision == "fp32"
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
        pixels = decode_image(data, uri="", orientation="auto", count_fitting=fitting, max_pixels=100_000_000).pixels
        height, width = pixels.shape[:2]
        for region in find_regions(masks, height=height, width=width, min_area=1, split_components=False):
            if isinstance(region, Region):
                yield pixels, region.box, region.bits
