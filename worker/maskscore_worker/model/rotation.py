"""Rotary position embeddings of timm's towers, in one step: pairs of numbers are complex ones, and are multiplied.

timm turns ``(a, b)`` into ``(a cos t - b sin t, b cos t + a sin t)`` in some ten steps over all queries and keys, three
of which copy them. It is ``(a + b i) · exp(i t)`` (Su et al., "RoFormer", 2021, section 3.4), which PyTorch computes in
place, right after the projection.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers.attention import AttentionRope
from timm.models.eva import Eva, EvaAttention
from torch import nn

from maskscore_worker.model.layer_trace import replace_layer

__all__ = ["merge_rotations"]


def merge_rotations(tower: Any) -> dict[str, Any]:
    """Let the projections of a tower's attentions rotate what they return; return the layers as they were, by name.

    Nothing is done, and nothing returned, where a tower has other attentions, or norms between projection and rotation.
    The name of the module that makes the embedding is among those returned; it is replaced by ``None``.
    """
    trunk: Any = getattr(tower, "trunk", tower)
    if not _has_one_embedding(trunk) or not all(_can_rotate(block.attn) for block in trunk.blocks):
        return {}
    names = {id(layer): name for name, layer in tower.named_modules()}
    sines, cosines = trunk.rope.get_embed().detach().chunk(2, dim=-1)  # each (L, D), a pair has one angle
    patches = torch.stack((cosines[:, ::2], sines[:, ::2]), dim=-1)
    before: dict[str, Any] = {names[id(trunk.rope)]: trunk.rope}
    for attention in (block.attn for block in trunk.blocks):
        unturned = torch.tensor([1.0, 0.0]).expand(attention.num_prefix_tokens, *patches.shape[1:])
        factors = torch.cat((unturned, patches))
        # Queries, keys and values in one, of which the first two thirds are turned; or in layers of their own.
        parts, turned = (3, 2) if attention.qkv is not None else (1, 1)
        for layer in _projections(attention):
            name = names[id(layer)]
            before[name] = layer
            replace_layer(tower, name, _RotatedProjection(layer, factors, parts=parts, turned=turned))
    trunk.rope = None
    return before


class _RotatedProjection(nn.Module):
    """``projection``, whose output ``(N, L, parts · H · D)`` is then rotated in its first ``turned`` parts.

    ``factors`` are the rotations of tokens, ``(L, D / 2, 2)``: cosine and sine.
    """

    _factors: torch.Tensor

    def __init__(self, projection: nn.Linear, factors: torch.Tensor, *, parts: int, turned: int) -> None:
        super().__init__()
        self.projection = projection
        self._parts, self._turned = parts, turned
        self.register_buffer("_factors", factors, persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return queries and keys, rotated, and values."""
        projected: torch.Tensor = self.projection(values)
        count, length, _ = projected.shape
        pairs = projected.view(count, length, self._parts, -1, *self._factors.shape[1:])[:, :, : self._turned]
        # A half-precision number has no complex one.
        exact = pairs.float()
        torch.view_as_complex(exact).mul_(torch.view_as_complex(self._factors.float())[:, None, None])
        if exact is not pairs:
            pairs.copy_(exact)
        return projected


def _projections(attention: Any) -> tuple[Any, ...]:
    return (attention.q_proj, attention.k_proj) if attention.qkv is None else (attention.qkv,)


def _has_one_embedding(trunk: Any) -> bool:
    # A mixed one differs between blocks; `feat_shape` is of those whose embedding does not depend on the call.
    return isinstance(trunk, Eva) and not trunk.rope_mixed and hasattr(trunk.rope, "feat_shape")


def _can_rotate(attention: Any) -> bool:
    return (
        type(attention) in (AttentionRope, EvaAttention)
        # timm reads the weight of a layer to which it adds a bias of its own.
        and getattr(attention, "q_bias", None) is None
        and all(type(layer) is nn.Linear for layer in _projections(attention))
        and not attention.rotate_half
        and all(isinstance(norm, nn.Identity) for norm in (attention.q_norm, attention.k_norm))
    )
