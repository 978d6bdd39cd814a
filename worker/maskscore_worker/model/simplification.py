"""The same tower with less work: branches and norms merged into convolutions, no MLP for tokens nobody reads."""

from __future__ import annotations

import logging
from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.layers.norm_act import BatchNormAct2d
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block
from timm.utils.model import reparameterize_model
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from maskscore_worker.model.layer_trace import TOLERANCE, replace_layer, trace_layers, unit_features
from maskscore_worker.model.rotation import merge_rotations

__all__ = ["simplify_tower"]

log = logging.getLogger(__name__)

_MERGING_METHODS = ("fuse", "reparameterize", "switch_to_deploy")
_NORMS = (nn.BatchNorm2d, BatchNormAct2d)
# Blocks that add their MLP to what they get, and the name of the norm before it.
_BLOCKS: dict[type[nn.Module], str] = {ResidualAttentionBlock: "ln_2", Block: "norm2", EvaBlock: "norm2"}


def simplify_tower(tower: Any, images: torch.Tensor) -> Any:
    """Return a tower with the same features and less work; ``tower`` itself may be changed.

    Branches that were separate in training alone (MobileOne's and RepVGG's blocks, as MobileCLIP has them) become one
    convolution, by timm's own functions; a batch norm that follows its convolution becomes a part of it. Where only the
    class token is pooled, the last block's MLP takes it alone. Rotary position embeddings are applied where the
    rotated projections are computed. Each step is kept only where the features of ``images``,
    normalised float32 ``(N, 3, S, S)``, stay equal to 1e-5.
    """
    mergeable = any(hasattr(layer, name) for layer in tower.modules() for name in _MERGING_METHODS)
    last_norm = _last_mlp_norm(tower)
    if not mergeable and not last_norm and not any(isinstance(layer, (*_NORMS, Eva)) for layer in tower.modules()):
        return tower
    expected = unit_features(tower, images)
    if mergeable:
        merged = reparameterize_model(tower).eval()
        if _is_same(merged, images, expected):
            tower = merged
        else:
            log.warning("the tower's branches stay separate: merged, they give other features")
    before = _fold_batch_norms(tower, images)
    if before and not _is_same(tower, images, expected):
        log.warning("the tower's batch norms stay layers of their own: folded, they give other features")
        for name, layer in before.items():
            replace_layer(tower, name, layer)
    before = merge_rotations(tower)
    if before and not _is_same(tower, images, expected):
        log.warning("the tower's positions are rotated by steps of their own: merged, they give other features")
        for name, layer in before.items():
            replace_layer(tower, name, layer)
    if last_norm:
        norm = tower.get_submodule(last_norm)
        replace_layer(tower, last_norm, _FirstToken(norm))
        if not _is_same(tower, images, expected):
            log.warning("the tower's last MLP takes all tokens: with the class token alone, it gives other features")
            replace_layer(tower, last_norm, norm)
    return tower


class _FirstToken(nn.Module):
    """The norm before a block's MLP, of the first token alone.

    The block adds what the MLP makes of it to every token; right is the first.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, tokens: torch.Tensor) -> Any:
        """Return ``(N, 1, D)`` of ``(N, L, D)``."""
        return self.norm(tokens[:, :1])


def _last_mlp_norm(tower: Any) -> str | None:
    """Return the name of the norm before the last block's MLP, where only the class token is pooled; else ``None``."""
    trunk = getattr(tower, "trunk", tower)
    if isinstance(tower, VisionTransformer):
        pools_first = tower.pool_type == "tok" and tower.attn_pool is None
    else:
        pools_first = getattr(trunk, "global_pool", None) == "token" and getattr(trunk, "attn_pool", None) is None
    blocks = [(name, layer) for name, layer in tower.named_modules() if type(layer) in _BLOCKS]
    if not pools_first or not blocks:
        return None
    name, block = blocks[-1]
    return f"{name}.{_BLOCKS[type(block)]}"


def _fold_batch_norms(tower: nn.Module, images: torch.Tensor) -> dict[str, nn.Module]:
    """Fold every batch norm that directly follows a convolution; return the layers as they were, by their names."""
    before: dict[str, nn.Module] = {}
    for call in trace_layers(tower, images, (nn.Conv2d, *_NORMS)):
        if call.follows is None or isinstance(call.layer, nn.Conv2d):
            continue
        convolution = tower.get_submodule(call.follows)
        if not isinstance(convolution, nn.Conv2d) or call.follows in before or call.layer.running_var is None:
            continue
        before[call.follows], before[call.name] = convolution, call.layer
        replace_layer(tower, call.follows, fuse_conv_bn_eval(convolution, call.layer))
        replace_layer(tower, call.name, getattr(call.layer, "act", nn.Identity()))
    return before


def _is_same(tower: nn.Module, images: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((unit_features(tower, images) - expected).abs().max() <= TOLERANCE)
