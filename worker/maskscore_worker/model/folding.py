"""The crops' normalisation, folded into the image tower's first convolution, so that crops stay uint8 until then.

With ``x`` a grey value, ``conv((x / 255 - mean) / std)`` is itself a convolution of ``x``: its weight is divided by
``255 · std`` and what ``mean`` contributes moves into the bias. Here of ``x - 128``: whole numbers from -128 to 127 are
exact in bf16 too, and what the weights' rounding adds stays small because the values lie around zero.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import nn

__all__ = ["MIDDLE", "fold_normalisation"]

MIDDLE = 128


def fold_normalisation(model: Any, mean: Sequence[float], std: Sequence[float]) -> Any | None:
    """Return a model whose ``encode_image`` takes ``x - 128``, ``(N, 3, S, S)``; ``None`` where it cannot be folded.

    It shares everything with ``model`` but the first convolution. Folded are open_clip's vision transformers, whose
    first convolution pads nothing: what a padding adds is zero after the normalisation, and would not be before it.
    """
    visual = model.visual
    convolution = getattr(visual, "conv1", None)
    if not isinstance(visual, VisionTransformer) or type(convolution) is not nn.Conv2d:
        return None
    if convolution.in_channels != 3 or convolution.groups != 1 or convolution.padding not in ((0, 0), "valid"):
        return None
    folded = _shallow(model)
    folded.visual = _shallow(visual)
    folded.visual.conv1 = _fold(convolution, mean, std)
    return folded


def _fold(convolution: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> nn.Conv2d:
    weight = convolution.weight.detach().double()
    means, stds = (
        torch.tensor(values, dtype=torch.float64, device=weight.device).view(1, 3, 1, 1) for values in (mean, std)
    )
    folded = copy.copy(convolution)
    folded._parameters = dict(convolution._parameters)
    bias = (weight * ((MIDDLE / 255 - means) / stds)).sum(dim=(1, 2, 3))
    if convolution.bias is not None:
        bias += convolution.bias.detach().double()
    dtype = convolution.weight.dtype
    folded.weight = nn.Parameter((weight / (255 * stds)).to(dtype), requires_grad=False)
    folded.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    return folded


def _shallow(module: Any) -> Any:
    """Copy a module whose children stay the same objects, so that one of them can be another."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
