"""CPU kernels of the image tower: its matrix products by oneDNN, with weights in oneDNN's own layout.

PyTorch gives fp32 products to MKL, which on AMD's processors uses half of what they can do; oneDNN, which PyTorch
carries too, is as exact and uses all of it. These operators are what ``torch.compile`` makes of a frozen model on a
CPU; used directly they need no C++ compiler, no minute of compiling and no fixed batch size.
"""

from __future__ import annotations

import logging
import platform
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import nn
from torch.nn import functional

__all__ = ["pack_linear_layers"]

log = logging.getLogger(__name__)

# The rows that the layout is chosen for: the tokens of a slice of crops. It is right for any number.
_ROWS = 400


def pack_linear_layers(tower: nn.Module) -> bool:
    """Replace the linear layers of a tower's transformer blocks, in place; return whether that was done.

    The tower must be on the CPU and in evaluation. Only open_clip's plain blocks are known, on x86, and only where the
    packed layer gives what the plain one gives.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    blocks: list[Any] = [
        module for module in tower.modules() if type(module) is ResidualAttentionBlock and _is_plain(module.attn)
    ]
    try:
        if not blocks or not _matches_plain(blocks[0].mlp.c_fc):
            return False
    except Exception as error:  # the operators are PyTorch's own, but not promised to stay
        log.warning("linear layers stay PyTorch's: %s: %s", type(error).__name__, error)
        return False
    for block in blocks:
        block.attn = _PackedAttention(block.attn)
        block.mlp.c_fc = _PackedLinear(block.mlp.c_fc.weight, block.mlp.c_fc.bias)
        block.mlp.c_proj = _PackedLinear(block.mlp.c_proj.weight, block.mlp.c_proj.bias)
    return True


class _PackedLinear(nn.Module):
    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), _ROWS)
        self._bias = bias.detach()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return ``values @ weight.T + bias``."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(values, self._weight, self._bias, "none", [], "")
        return product


class _PackedAttention(nn.Module):
    """Self-attention with the signature in which open_clip's blocks call :class:`torch.nn.MultiheadAttention`."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self._heads = attention.num_heads
        self._in = _PackedLinear(attention.in_proj_weight, attention.in_proj_bias)
        self._out = _PackedLinear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(
        self, query: torch.Tensor, key: Any, value: Any, *, need_weights: bool, attn_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, None]:
        """Attend from ``query`` ``(N, L, D)`` to itself; ``key`` and ``value`` are the same tensor."""
        count, length, width = query.shape
        parts = self._in(query).view(count, length, 3, self._heads, width // self._heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=attn_mask)
        return self._out(attended.transpose(1, 2).reshape(count, length, width)), None


def _is_plain(attention: Any) -> bool:
    return (
        type(attention) is nn.MultiheadAttention
        and attention.batch_first
        and attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
    )


def _matches_plain(layer: Any) -> bool:
    values = torch.linspace(-1, 1, 2 * layer.in_features).view(2, -1).to(layer.weight.dtype)
    with torch.inference_mode():
        plain, packed = layer(values).float(), _PackedLinear(layer.weight, layer.bias)(values).float()
    tolerance = 1e-4 if layer.weight.dtype == torch.float32 else 5e-2
    return bool(torch.allclose(plain, packed, rtol=tolerance, atol=tolerance * float(plain.abs().max())))
