"""open_clip models with random weights, in a folder as users have one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from maskscore_worker.weights import preprocessing_of, tags_of

__all__ = ["TEXTS", "architecture_config", "image_tower_parameters", "own_text_tower", "write_random_model"]

TEXTS: Final = ("a cat", "a rocket", "a cup of coffee", "a person")
"""Prompts whose words a tokenizer of :func:`write_random_model` knows."""


def own_text_tower() -> list[str]:
    """Return open_clip's architectures whose text tower is open_clip's own, not one of a hub."""
    names: list[str] = open_clip.list_models()
    return [name for name in names if not open_clip.get_model_config(name)["text_cfg"].get("hf_model_name")]


def image_tower_parameters(architecture: str) -> int:
    """Return how many parameters the image tower has, without memory for them."""
    with torch.device("meta"):
        model = open_clip.create_model(architecture, load_weights=False, device="meta")
    return sum(parameter.numel() for parameter in model.visual.parameters())


def architecture_config(architecture: str) -> dict[str, Any]:
    """Return what ``open_clip_config.json`` holds for the first of the architecture's tags."""
    config = {"model_cfg": open_clip.get_model_config(architecture)}
    if tags := tags_of(architecture):
        config["preprocess_cfg"] = dataclasses.asdict(preprocessing_of(architecture, tags[0].tag))
    return config


def write_random_model(folder: Path, config: dict[str, Any], *, seed: int = 1) -> Path:
    """Write weights, ``config`` and, where the model wants one, a small tokenizer into ``folder``, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config), "utf-8")
    if config["model_cfg"]["text_cfg"].get("hf_tokenizer_name"):
        _write_tokenizer(folder)
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    state = {name: _varied(name, value) for name, value in model.state_dict().items()}
    partial = folder / "weights.partial"
    save_file(state, partial)
    partial.rename(folder / "open_clip_model.safetensors")
    return folder


def _varied(name: str, value: torch.Tensor) -> torch.Tensor:
    """Return a tensor without what hides a layer: scales of 1e-6, statistics that change nothing."""
    value = value.detach().contiguous()
    if value.dim() == 0 or not value.is_floating_point() or bool((value != value.flatten()[0]).any()):
        return value
    if name.endswith(("bias", "running_mean")):
        return torch.randn_like(value) * 0.1
    # Neither far from 1, nor a sum that grows from block to block.
    lowest, highest = (0.05, 0.3) if float(value.flatten()[0]) < 0.5 else (0.7, 1.3)
    return torch.empty_like(value).uniform_(lowest, highest)


def _write_tokenizer(folder: Path) -> None:
    words = sorted({word for text in TEXTS for word in text.split()})
    numbers = {"<pad>": 0, "</s>": 1, "<unk>": 2, **{word: 3 + at for at, word in enumerate(words)}}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind), "utf-8")
