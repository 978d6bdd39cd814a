"""``python -m maskscore_worker.demo.train --out DIR``: train the small demo model, on a CPU, in a few minutes.

It learns, as CLIP does, to match crops with sentences: cross-entropy over the prompts of the demo set, the crops made
by the very code that serves them. The folder it writes is an open_clip folder like any other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import open_clip
import torch
from open_clip.transform import PreprocessCfg
from safetensors.torch import save_file
from torch.nn import functional

from maskscore.imaging import ClipTransform
from maskscore.prompts import load_builtin
from maskscore.schema import SPECIFIED, PromptSet, Treatment, View
from maskscore_worker.crops import make_crop
from maskscore_worker.demo.scenes import Scene, SceneMask, draw_scene

__all__ = ["MODEL_CFG", "crops_of", "train"]

MODEL_CFG = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 128, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
_SIDE = 64
_HELD_OUT = 5_000_000
_TREATMENTS: tuple[Treatment, ...] = SPECIFIED


def crop_of(scene: Scene, mask: SceneMask, treatment: Treatment) -> npt.NDArray[np.uint8]:
    """Return the ``(64, 64, 3)`` uint8 crop of a mask, as the service makes it."""
    rows, columns = np.nonzero(mask.mask)
    top, left = int(rows.min()), int(columns.min())
    box = (left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1)
    bits = mask.mask[top : top + box[3], left : left + box[2]]
    return make_crop(scene.image, box, bits, View(treatment=treatment), transform=ClipTransform(_SIDE))


def crops_of(
    seeds: range, prompts: PromptSet, treatments: tuple[Treatment, ...]
) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
    """Yield the crops of the seeds' scenes with the index of the prompt that is true of each."""
    for seed in seeds:
        scene = draw_scene(seed)
        for mask in scene.masks:
            for treatment in treatments:
                yield crop_of(scene, mask, treatment), prompts.texts.index(mask.label)


def _dataset(seeds: range, prompts: PromptSet, treatments: tuple[Treatment, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    crops, labels = zip(*crops_of(seeds, prompts, treatments), strict=True)
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor(labels)


def train(out: Path, *, scenes: int, epochs: int, seed: int) -> dict[str, float]:
    """Train, save the folder, and return the accuracy per treatment on scenes that were held out."""
    torch.manual_seed(seed)
    prompts = load_builtin("demo")
    started = time.perf_counter()
    click.echo(f"drawing {scenes} scenes ...", err=True)
    pixels, labels = _dataset(range(seed, seed + scenes), prompts, _TREATMENTS)
    click.echo(f"{len(labels)} crops after {time.perf_counter() - started:.0f} s", err=True)
    model: Any = open_clip.model.CLIP(**MODEL_CFG)
    tokens = open_clip.get_tokenizer("ViT-B-32")(list(prompts.texts), context_length=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02)
    batch = 256
    steps = epochs * -(-len(labels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, total_steps=steps, pct_start=0.15)
    for epoch in range(epochs):
        total = 0.0
        for indices in torch.split(torch.randperm(len(labels)), batch):
            images = model.encode_image(_normalise(pixels[indices]), normalize=True)
            texts = model.encode_text(tokens, normalize=True)
            loss = functional.cross_entropy(model.logit_scale.exp() * images @ texts.T, labels[indices])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, float(np.log(100)))
            total += float(loss.detach()) * len(indices)
        elapsed = time.perf_counter() - started
        click.echo(f"epoch {epoch + 1}/{epochs}: loss {total / len(labels):.4f}, {elapsed:.0f} s", err=True)
    _save(model, tokens, out)
    return {name: _accuracy(model, tokens, prompts, name) for name in _TREATMENTS}


def _normalise(pixels: torch.Tensor) -> torch.Tensor:
    preprocess = PreprocessCfg()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    return (pixels.float() / 255 - mean) / std


@torch.no_grad()
def _accuracy(model: Any, tokens: torch.Tensor, prompts: PromptSet, treatment: Treatment) -> float:
    pixels, labels = _dataset(range(_HELD_OUT, _HELD_OUT + 60), prompts, (treatment,))
    images = model.eval().encode_image(_normalise(pixels), normalize=True)
    chosen = (images @ model.encode_text(tokens, normalize=True).T).argmax(dim=1)
    return float((chosen == labels).float().mean())


def _save(model: Any, tokens: torch.Tensor, out: Path) -> None:
    """Write open_clip's folder: half precision, with the embeddings of words that were never seen set to zero."""
    state = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    seen = torch.zeros(len(state["token_embedding.weight"]), 1, dtype=torch.float16)
    seen[torch.unique(tokens)] = 1
    state["token_embedding.weight"] *= seen
    # The causal mask is computed, and holds infinities.
    state.pop("attn_mask", None)
    out.mkdir(parents=True, exist_ok=True)
    save_file(state, out / "open_clip_model.safetensors")
    preprocess = PreprocessCfg()
    config = {
        "model_cfg": MODEL_CFG,
        "preprocess_cfg": {
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "interpolation": preprocess.interpolation,
            "resize_mode": preprocess.resize_mode,
        },
    }
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


@click.command()
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write.")
@click.option("--scenes", default=900, show_default=True, help="Scenes to train on.")
@click.option("--epochs", default=8, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(out: Path, scenes: int, epochs: int, seed: int) -> None:
    """Train the small demo model."""
    for treatment, accuracy in train(out, scenes=scenes, epochs=epochs, seed=seed).items():
        click.echo(f"held out, {treatment}: {accuracy:.1%} of the crops match their own prompt")
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
