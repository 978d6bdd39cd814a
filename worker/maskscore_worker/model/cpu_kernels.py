"""CPU kernels of the image tower: its products and convolutions by oneDNN, with weights in oneDNN's own layout.

PyTorch gives fp32 products to MKL, which on AMD's processors uses half of what they can do; oneDNN, which PyTorch
carries too, is as exact and uses all of it. With packed weights a convolution's images are channels-last, and what
follows a layer pointwise (its bias, GELU, ReLU) is computed while its output is still in the cache. These operators are
what ``torch.compile`` makes of a frozen model on a CPU; used directly they need no C++ compiler, no minute of compiling
and no fixed batch size. Each layer's kernel stands beside what packs it, so it is longer than other modules.
"""

from __future__ import annotations

import logging
import platform
from typing import Any, Final, Literal

import torch
from open_clip.transformer import ResidualAttentionBlock
from timm.layers import GELU, GELUTanh
from torch import nn
from torch.nn import functional

from maskscore_worker.model.cpu_threads import CROPS_PER_PASS
from maskscore_worker.model.layer_trace import TOLERANCE, replace_layer, trace_layers, unit_features
from maskscore_worker.model.split_product import SplitWeight, can_split

__all__ = ["count_rounded", "pack_layers"]

log = logging.getLogger(__name__)

# A vision transformer has one convolution, its patch embedding; ViTamin and the hybrids more.
_FEW_CONVOLUTIONS: Final = 3
# By the rounding of what is added in another order.
_TOLERANCES: Final = {torch.float16: 4e-3, torch.bfloat16: 3e-2}
_ROUNDED_TOLERANCE: Final = 1e-2

# One product of three has a smaller limit.
_FEWEST_ROUNDED_WEIGHTS: Final = 65_536
# What is around a split product grows with inputs and outputs, what it saves with the product of both: these limits
# are of ins · outs / (ins + outs). With few rows, a crop that is alone takes most of its time to read weights.
_LEAST_SPLIT_WORK: Final = 280
_LEAST_SPLIT_WORK_OF_FEW_ROWS: Final = 500
_FEW_ROWS_OF_A_CROP: Final = 128
_FEWEST_ROWS_OF_A_CROP: Final = 16

# How products are split: all three, or the first alone.
_Split = Literal["whole", "rounded"] | None

# oneDNN's name of what follows a layer pointwise, and of its variant.
_PostOp = tuple[str, str]
_NO_POST_OP: Final = ("none", "")
_ACTIVATIONS: Final = (nn.ReLU, nn.GELU, GELU, GELUTanh)


def pack_layers(tower: nn.Module, images: torch.Tensor, *, mixed: bool = False) -> bool:
    """Replace a tower's dense layers, in place; return whether that was done.

    Packed are linear layers, the self-attention of open_clip's blocks, and the convolutions of a tower that has more
    than a patch embedding. The products of large linear layers in fp32 are split where the processor has AMX; with
    ``mixed`` their factors are rounded to bf16 there, and all else stays fp32. The tower must be on the CPU and in
    evaluation. It stays as it was on other processors than x86, and where the features of ``images``, normalised ``(N,
    3, S, S)`` of the tower's type, differ then.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    expected = unit_features(tower, images)
    if images.dtype is torch.float32 and can_split():
        for split in ("rounded", "whole") if mixed else ("whole",):
            if _pack(tower, images, expected, split=split):
                return True
    return _pack(tower, images, expected, split=None)


def count_rounded(tower: nn.Module) -> int:
    """Return of how many layers :func:`pack_layers` has rounded the factors."""
    return sum(isinstance(layer, _SplitLinear) and layer.rounded for layer in tower.modules())


def _pack(tower: nn.Module, images: torch.Tensor, expected: torch.Tensor, *, split: _Split) -> bool:
    packed: dict[str, Any] = {}
    activations: dict[str, nn.Module] = {}
    how = "packed" if split is None else "packed, with products of bf16 parts"
    tolerance = _ROUNDED_TOLERANCE if split == "rounded" else _TOLERANCES.get(images.dtype, TOLERANCE)
    try:
        rows = _pack_calls(tower, images, packed, activations, split=split)
        _pack_attentions(tower, rows, packed, split=split)
        difference = float((unit_features(tower, images) - expected).abs().max())
        # A difference that is no number is none to accept.
        if difference <= tolerance:
            for layer in packed.values():
                layer.forget_plain()
            return bool(packed)
        log.warning("the image tower's layers stay PyTorch's: %s, they move a feature by %.2g", how, difference)
    except Exception as error:  # the operators are PyTorch's own, but not promised to stay
        log.warning("the image tower's layers stay PyTorch's: %s: %s: %s", how, type(error).__name__, error)
    for name, layer in packed.items():
        replace_layer(tower, name, layer.unpacked())
    for name, activation in activations.items():
        replace_layer(tower, name, activation)
    return False


def _pack_calls(
    tower: nn.Module,
    images: torch.Tensor,
    packed: dict[str, Any],
    activations: dict[str, nn.Module],
    *,
    split: _Split,
) -> int:
    """Pack what is called; return the most rows of a linear layer in a pass."""
    most_rows = 1
    calls = trace_layers(tower, images, (nn.Linear, nn.Conv2d, *_ACTIVATIONS))
    following = {call.follows: call for call in calls if type(call.layer) in _ACTIVATIONS}
    convolutional = sum(type(call.layer) is nn.Conv2d for call in calls) > _FEW_CONVOLUTIONS
    while calls:  # so that no more than one layer is held twice
        call = calls.pop(0)
        activation = following.get(call.name)
        post_op = _NO_POST_OP if activation is None else _post_op_of(activation.layer)
        if type(call.layer) is nn.Linear:
            rows = call.shape.numel() // call.shape[-1] // len(images) * CROPS_PER_PASS
            most_rows = max(most_rows, rows)
            layer: nn.Module = _linear(call.layer.weight, call.layer.bias, rows, post_op, split=split)
        elif convolutional and _is_plain_convolution(call.layer):
            layer = _PackedConvolution(call.layer, call.shape, post_op)
        else:
            continue
        packed[call.name] = layer
        replace_layer(tower, call.name, layer)
        if activation is not None:
            activations[activation.name] = activation.layer
            replace_layer(tower, activation.name, nn.Identity())
    return most_rows


def _pack_attentions(tower: nn.Module, rows: int, packed: dict[str, Any], *, split: _Split) -> None:
    for name, block in list(tower.named_modules()):
        if type(block) is ResidualAttentionBlock and _is_plain(block.attn):
            path = f"{name}.attn" if name else "attn"
            packed[path] = _PackedAttention(block.attn, rows, split=split)
            block.attn = packed[path]


def _linear(
    weight: torch.Tensor, bias: torch.Tensor | None, rows: int, post_op: _PostOp, *, split: _Split
) -> _PackedLinear | _SplitLinear:
    rounded = split == "rounded" and weight.numel() >= _FEWEST_ROUNDED_WEIGHTS
    whole = split == "whole" and _split_pays(weight, rows // CROPS_PER_PASS)
    if rounded or whole:
        return _SplitLinear(weight, bias, post_op, rounded=rounded)
    return _PackedLinear(weight, bias, rows, post_op)


def _split_pays(weight: torch.Tensor, rows_of_a_crop: int) -> bool:
    outs, ins = weight.shape
    least = _LEAST_SPLIT_WORK_OF_FEW_ROWS if rows_of_a_crop < _FEW_ROWS_OF_A_CROP else _LEAST_SPLIT_WORK
    return rows_of_a_crop >= _FEWEST_ROWS_OF_A_CROP and outs * ins >= least * (outs + ins)


class _SplitLinear(nn.Module):
    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, post_op: _PostOp, *, rounded: bool) -> None:
        super().__init__()
        self.rounded = rounded
        self._weight = SplitWeight(weight, rounded=rounded)
        self._bias = None if bias is None else bias.detach()
        self._post_op = post_op

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return ``values @ weight.T + bias``, and what follows it pointwise."""
        product = self._weight.multiply(values, self._bias)
        kind, algorithm = self._post_op
        if kind == "relu":
            product.relu_()
        elif kind == "gelu":
            torch.ops.aten.gelu_(product, approximate=algorithm)
        return product

    def unpacked(self) -> nn.Linear:
        """Return PyTorch's layer with the same weights."""
        return _plain_linear(self._weight.whole(), self._bias)

    def forget_plain(self) -> None:
        """Free what only :meth:`unpacked` needs."""
        self._weight.drop_remainder()


class _PackedLinear(nn.Module):
    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, rows: int, post_op: _PostOp) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)
        self._bias = None if bias is None else bias.detach()
        self._post_op = post_op

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return ``values @ weight.T + bias``, and what follows it pointwise."""
        kind, algorithm = self._post_op
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            values, self._weight, self._bias, kind, [], algorithm
        )
        return product

    def unpacked(self) -> nn.Linear:
        """Return PyTorch's layer with the same weights."""
        return _plain_linear(self._weight.to_dense(), self._bias)

    def forget_plain(self) -> None:
        """Nothing is kept for :meth:`unpacked`."""


class _PackedConvolution(nn.Module):
    """A convolution whose output is channels-last."""

    def __init__(self, plain: nn.Conv2d, shape: torch.Size, post_op: _PostOp) -> None:
        super().__init__()
        padding = (0, 0) if plain.padding == "valid" else plain.padding
        self._how = (list(padding), list(plain.stride), list(plain.dilation), plain.groups)
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(
            plain.weight.detach(), *self._how, [CROPS_PER_PASS, *shape[1:]]
        )
        self._shape = plain.weight.shape
        self._bias = None if plain.bias is None else plain.bias.detach()
        self._post_op = post_op

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return what the convolution returns, and what follows it pointwise."""
        kind, algorithm = self._post_op
        convolved: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            values, self._weight, self._bias, *self._how, kind, [], algorithm
        )
        return convolved

    def unpacked(self) -> nn.Conv2d:
        """Return PyTorch's layer with the same weights."""
        padding, stride, dilation, groups = self._how
        outs, ins, *kernel = self._shape
        layer = nn.Conv2d(
            ins * groups,
            outs,
            tuple(kernel),  # type: ignore[arg-type]
            padding=tuple(padding),  # type: ignore[arg-type]
            stride=tuple(stride),  # type: ignore[arg-type]
            dilation=tuple(dilation),  # type: ignore[arg-type]
            groups=groups,
            bias=self._bias is not None,
            device="meta",
        )
        _give(layer, weight=self._weight.to_dense().reshape(self._shape), bias=self._bias)
        return layer

    def forget_plain(self) -> None:
        """Nothing is kept for :meth:`unpacked`."""


class _PackedAttention(nn.Module):
    """Self-attention with the signature in which open_clip's blocks call :class:`torch.nn.MultiheadAttention`."""

    def __init__(self, plain: nn.MultiheadAttention, rows: int, *, split: _Split) -> None:
        super().__init__()
        self._heads = plain.num_heads
        self._in = _linear(plain.in_proj_weight, plain.in_proj_bias, rows, _NO_POST_OP, split=split)
        self._out = _linear(plain.out_proj.weight, plain.out_proj.bias, rows, _NO_POST_OP, split=split)

    def forward(
        self, query: torch.Tensor, key: Any, value: Any, *, need_weights: bool, attn_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, None]:
        """Attend from ``query`` ``(N, L, D)`` to itself; ``key`` and ``value`` are the same tensor."""
        count, length, width = query.shape
        parts = self._in(query).view(count, length, 3, self._heads, width // self._heads).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=attn_mask)
        return self._out(attended.transpose(1, 2).reshape(count, length, width)), None

    def unpacked(self) -> nn.MultiheadAttention:
        """Return PyTorch's layer with the same weights."""
        into, out = self._in.unpacked(), self._out.unpacked()
        layer = nn.MultiheadAttention(into.in_features, self._heads, batch_first=True, device="meta")
        _give(layer, in_proj_weight=into.weight, in_proj_bias=into.bias)
        _give(layer.out_proj, weight=out.weight, bias=out.bias)
        return layer

    def forget_plain(self) -> None:
        """Free what only :meth:`unpacked` needs."""
        self._in.forget_plain()
        self._out.forget_plain()


def _plain_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    outs, ins = weight.shape
    layer = nn.Linear(ins, outs, bias=bias is not None, device="meta")
    _give(layer, weight=weight, bias=bias)
    return layer


def _give(layer: nn.Module, **tensors: torch.Tensor | None) -> None:
    for name, tensor in tensors.items():
        setattr(layer, name, None if tensor is None else nn.Parameter(tensor.detach(), requires_grad=False))
    layer.eval()


def _is_plain(attention: Any) -> bool:
    return (
        type(attention) is nn.MultiheadAttention
        and attention.batch_first
        and attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
    )


def _is_plain_convolution(layer: Any) -> bool:
    return type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and layer.padding != "same"


def _post_op_of(activation: nn.Module) -> _PostOp:
    """Return how oneDNN calls one of :data:`_ACTIVATIONS`."""
    if type(activation) is nn.ReLU:
        return "relu", ""
    if type(activation) is GELUTanh:
        return "gelu", "tanh"
    if type(activation) is nn.GELU:
        return "gelu", str(activation.approximate)
    return "gelu", "none"
