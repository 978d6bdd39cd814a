"""The same tower with fewer layers: branches merged into one convolution, batch norms folded into convolutions."""

from __future__ import annotations

import logging
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from timm.utils.model import reparameterize_model
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from maskscore_worker.model.layer_trace import TOLERANCE, replace_layer, trace_layers, unit_features

__all__ = ["simplify_tower"]

log = logging.getLogger(__name__)

_MERGING_METHODS = ("fuse", "reparameterize", "switch_to_deploy")
_NORMS = (nn.BatchNorm2d, BatchNormAct2d)


def simplify_tower(tower: Any, images: torch.Tensor) -> Any:
    """Return a tower with the same features and fewer layers; ``tower`` itself may be changed.

    Branches that were separate in training alone (MobileOne's and RepVGG's blocks, as MobileCLIP has them) become one
    convolution, by timm's own functions; a batch norm that follows its convolution becomes a part of it. Each step is
    kept only where the features of ``images``, normalised float32 ``(N, 3, S, S)``, stay equal to 1e-5.
    """
    mergeable = any(hasattr(layer, name) for layer in tower.modules() for name in _MERGING_METHODS)
    if not mergeable and not any(isinstance(layer, _NORMS) for layer in tower.modules()):
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
    return tower


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
