"""What bf16 does to the probabilities: the demo model on drawn scenes, and on the shared photos where they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from bench.crops import coco_mini, crops_of
from bench.figures import Figures
from bench.material import COCO_MINI
from maskscore.job import ScoringOptions, View
from maskscore.prompts import load_builtin
from maskscore_worker.crops import make_crop
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from maskscore_worker.model import load_model
from maskscore_worker.scoring import score

__all__ = ["run"]

Crops = npt.NDArray[np.uint8]


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Score the same masks in both precisions, each with its own crops, as a worker does."""
    cpu = torch.device("cpu")
    models = {name: load_model(DEMO_WEIGHTS, architecture="", device=cpu, precision=name) for name in ("fp32", "bf16")}
    size = models["fp32"].image_size
    count = 200 if full else 40
    sets = {"scenes": {name: _scenes(count, size, exact=name == "fp32") for name in models}}
    if COCO_MINI.is_dir():
        photos = coco_mini()
        sets["coco"] = {name: np.stack(crops_of(photos, size, exact=name == "fp32")) for name in models}
    prompts = load_builtin("demo")
    options = ScoringOptions(top_k=len(prompts.texts))
    table = Table(title="bf16 against fp32, the demo model, all probabilities of all masks")
    for column in ("masks", "count", "largest difference", "99th percentile", "other multiplier", "other best prompt"):
        table.add_column(column, justify="left" if column == "masks" else "right")
    for name, crops in sets.items():
        answers = {}
        for precision, model in models.items():
            own = crops[precision]
            features = np.concatenate([model.encode_images(own[at : at + 64]) for at in range(0, len(own), 64)])
            texts = model.encode_texts(prompts.texts)
            answers[precision] = score(features, texts, prompts, logit_scale=model.logit_scale, options=options)
        differences, multipliers, winners = [], 0, 0
        for exact, ours in zip(answers["fp32"], answers["bf16"], strict=True):
            given = {entry.text: entry.score for entry in ours.top_k or []}
            differences += [abs(entry.score - given[entry.text]) for entry in exact.top_k or []]
            multipliers += exact.semantic_multiplier != ours.semantic_multiplier
            winners += (exact.s_pos_text, exact.s_neg_text) != (ours.s_pos_text, ours.s_neg_text)
        largest, p99 = max(differences), float(np.percentile(differences, 99))
        if not 0 < largest < 0.5:
            raise AssertionError(f"bf16 moves a probability by {largest}")
        table.add_row(name, str(len(crops["fp32"])), f"{largest:.4f}", f"{p99:.4f}", str(multipliers), str(winners))
        figures[f"precision.{name}_max"] = largest
        figures[f"precision.{name}_p99"] = p99
        figures[f"precision.{name}_masks"] = len(crops["fp32"])
        figures[f"precision.{name}_multipliers_changed"] = multipliers
    console.print(table)


def _scenes(count: int, size: int, *, exact: bool) -> Crops:
    crops = []
    for seed in range(550_000, 550_000 + count):
        scene = draw_scene(seed)
        for mask in scene.masks:
            rows, columns = np.nonzero(mask.mask)
            x, y = int(columns.min()), int(rows.min())
            bits = mask.mask[y : int(rows.max()) + 1, x : int(columns.max()) + 1]
            box = (x, y, bits.shape[1], bits.shape[0])
            inside = np.ascontiguousarray(bits)
            crops.append(make_crop(scene.image, box, inside, View(), size=size, exact=exact))
    return np.stack(crops)
