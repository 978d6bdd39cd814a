"""A weights file → the tensors of a model, strictly: a layer left at random values would give plausible scores."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from maskscore.errors import WeightsError

__all__ = ["dtypes_of", "load_checkpoint", "read_checkpoint"]

# Buffers that some releases saved and others compute; they hold no learned value.
_HARMLESS_KEYS = re.compile(r"(^|\.)(position_ids|attn_mask)$")

Checkpoint = dict[str, torch.Tensor]


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the tensors of a safetensors file or of a PyTorch checkpoint, by key, on the CPU.

    A checkpoint is unpickled with ``weights_only``; as in open_clip it may wrap the tensors in ``state_dict`` and
    prefix the keys with ``module.``. Raises :class:`~maskscore.errors.WeightsError` when the file cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read: {type(error).__name__}: {error}. Fetch it again; `maskscore weights pull` checks "
            "the digest."
        ) from error
    tensors = tensors.get("state_dict", tensors) if isinstance(tensors, dict) else tensors
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise WeightsError(f"{path} holds no state dict of tensors.")
    return {str(key).removeprefix("module."): value for key, value in tensors.items()}


def dtypes_of(tensors: Checkpoint) -> str:
    """Return the floating-point types that the tensors are stored in, such as ``float16``."""
    return ", ".join(
        sorted({str(value.dtype).removeprefix("torch.") for value in tensors.values() if value.is_floating_point()})
    )


def load_checkpoint(model: torch.nn.Module, tensors: Checkpoint, path: Path, architecture: str) -> None:
    """Load the tensors into the model, cast to its own types (fp32).

    Raises :class:`~maskscore.errors.WeightsError` that names the keys that are missing, unexpected, of another shape,
    or not finite; ``path`` and ``architecture`` are for its message.
    """
    wanted = model.state_dict()
    problems = []
    for what, keys in (("missing", wanted.keys() - tensors.keys()), ("unexpected", tensors.keys() - wanted.keys())):
        named = sorted(key for key in keys if not _HARMLESS_KEYS.search(key))
        if named:
            problems.append(f"{len(named)} {what}: {_some(named)}")
    # The harmless ones keep the values that the model computed, whatever their shape in the file.
    shared = [key for key in wanted if key in tensors and not _HARMLESS_KEYS.search(key)]
    shapes = [
        f"{key} is {tuple(tensors[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in shared
        if tensors[key].shape != wanted[key].shape
    ]
    if shapes:
        problems.append(f"{len(shapes)} of another shape: {_some(shapes)}")
    if problems:
        raise WeightsError(
            f"{path} does not fit {architecture}: {'; '.join(problems)}. Set MASKSCORE_MODEL to the architecture that "
            "the weights are of, or put its open_clip_config.json into the folder."
        )
    broken = [key for key in shared if not torch.isfinite(tensors[key]).all()]
    if broken:
        raise WeightsError(f"{path} holds values that are not finite, in {_some(broken)}. Fetch it again.")
    model.load_state_dict({key: tensors[key] for key in shared}, strict=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
