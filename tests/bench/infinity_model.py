"""The benchmarks' ViT-B-32 in the layout that Hugging Face's CLIP has, which infinity reads: the same numbers, renamed.

Names and shapes: https://github.com/huggingface/transformers, ``models/clip/modeling_clip.py`` and
``convert_clip_original_pytorch_to_hf.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

__all__ = ["ensure_hugging_face_model"]

_OUTER: Final = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
# Applied from the right in open_clip, as layers in Hugging Face's.
_PROJECTIONS: Final = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
_INNER: Final = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_BLOCK: Final = re.compile(r"^(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)$")

_CONFIG: Final = {
    "architectures": ["CLIPModel"],
    "model_type": "clip",
    "projection_dim": 512,
    "torch_dtype": "float32",
    "text_config": {
        "hidden_act": "gelu",
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": 12,
        "projection_dim": 512,
        "eos_token_id": 49407,
    },
    "vision_config": {
        "hidden_act": "gelu",
        "hidden_size": 768,
        "image_size": 224,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "patch_size": 32,
        "projection_dim": 512,
    },
}
_PROCESSOR: Final = {
    "image_processor_type": "CLIPImageProcessor",
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}
_TOKENIZER: Final = {
    "tokenizer_class": "CLIPTokenizer",
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "model_max_length": 77,
}


def ensure_hugging_face_model(weights: Path) -> Path:
    """Return a folder with the model of ``weights`` (its ``open_clip_model.safetensors``), written once beside it."""
    folder = weights.with_name(weights.name + "-hugging-face")
    file = folder / "model.safetensors"
    if not file.exists():
        folder.mkdir(exist_ok=True)
        _tokenizer(folder)
        for name, content in (
            ("config.json", _CONFIG),
            ("preprocessor_config.json", _PROCESSOR),
            ("tokenizer_config.json", _TOKENIZER),
        ):
            (folder / name).write_text(json.dumps(content, indent=2), "utf-8")
        state = load_file(weights / "open_clip_model.safetensors")
        renamed = {name: value.contiguous() for key in state for name, value in _renamed(key, state[key])}
        partial = file.with_suffix(".partial")
        save_file(renamed, partial, metadata={"format": "pt"})
        partial.rename(file)
    return folder


def _renamed(key: str, value: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if key in _OUTER:
        yield _OUTER[key], value
    elif key in _PROJECTIONS:
        yield _PROJECTIONS[key], value.T
    elif block := _BLOCK.match(key):
        tower, number, layer, kind = block.groups()
        prefix = f"{'vision' if tower else 'text'}_model.encoder.layers.{number}"
        if layer == "attn.in_proj":
            for name, part in zip("qkv", value.chunk(3), strict=True):
                yield f"{prefix}.self_attn.{name}_proj.{kind}", part
        else:
            yield f"{prefix}.{_INNER[layer]}.{kind}", value
    else:
        raise ValueError(f"no name for {key}")


def _tokenizer(folder: Path) -> None:
    """Write CLIP's vocabulary, which open_clip carries, as Hugging Face's tokenizer reads it."""
    from open_clip.tokenizer import SimpleTokenizer

    ours: Any = SimpleTokenizer()
    # open_clip and Hugging Face write the two special tokens differently.
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): number for token, number in ours.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    merges = sorted(ours.bpe_ranks, key=ours.bpe_ranks.get)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
