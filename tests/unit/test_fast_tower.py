"""Image towers in their faster form give open_clip's features; a step that would change them is taken back."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import nn
from torch.nn import functional

from maskscore_worker.model import cpu_kernels, rotation, simplification, split_product
from maskscore_worker.model.fast_tower import fast_tower
from maskscore_worker.model.split_product import SplitWeight, can_split

CPU = torch.device("cpu")
SIDE = 64
PACKED_HERE = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]

_vit: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 2, "img_size": SIDE, "num_classes": 0}
TOWERS: dict[str, Callable[[], Any]] = {
    "resnet": lambda: ModifiedResNet((1, 1, 1, 1), output_dim=32, heads=4, image_size=SIDE, width=16),
    "coca": lambda: VisionTransformer(
        SIDE, 16, 32, 2, 2, 4.0, attentional_pool=True, attn_pooler_queries=5, output_dim=32, output_tokens=True
    ),
    "siglip": lambda: timm.create_model("vit_base_patch16_siglip_224", **_vit),
    "pe-core": lambda: timm.create_model("vit_pe_core_tiny_patch16_384", **_vit),
    "eva02": lambda: timm.create_model("eva02_base_patch16_clip_224", **_vit),
    "convnext": lambda: timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(16, 16, 32, 32), num_classes=24),
    "mobileclip": lambda: timm.create_model(
        "fastvit_mci0", layers=(1, 1, 1, 1), embed_dims=(16, 16, 32, 64), num_classes=24
    ),
}


def made(kind: str) -> Any:
    torch.manual_seed(4)
    tower = TOWERS[kind]().eval()
    norms: list[Any] = [layer for layer in tower.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.running_mean.normal_(0, 0.2)
        layer.running_var.uniform_(0.5, 1.5)
        nn.init.uniform_(layer.weight, 0.5, 1.5)
    return tower


def images(count: int) -> torch.Tensor:
    return torch.randn((count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(8))


def features(tower: Any, values: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found = tower(values)
        return functional.normalize((found[0] if isinstance(found, tuple) else found).float(), dim=-1)


@pytest.mark.parametrize("kind", TOWERS)
def test_the_faster_tower_gives_the_same_features(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    plain = made(kind)
    fast = fast_tower(copy.deepcopy(plain), image_size=SIDE, dtype=torch.float32, device=CPU)
    assert caplog.messages == []
    for count in (1, 3):
        values = images(count)
        torch.testing.assert_close(features(fast, values), features(plain, values), atol=1e-5, rtol=0)
    if PACKED_HERE:
        remaining = [type(layer) for layer in fast.modules()]
        assert remaining.count(nn.Linear) <= (4 if kind == "resnet" else 0)  # the pool reads their weights itself
        assert nn.BatchNorm2d not in remaining or kind == "mobileclip"  # where an attention's norm follows a sum
        if kind in ("resnet", "convnext", "mobileclip"):
            assert nn.Conv2d not in remaining


def test_merged_branches_are_one_convolution() -> None:
    tower = made("mobileclip")
    simple = simplification.simplify_tower(copy.deepcopy(tower), images(1))
    norms = [sum(isinstance(layer, nn.BatchNorm2d) for layer in one.modules()) for one in (tower, simple)]
    assert norms[1] < norms[0] / 4


class _ReadsTwice(nn.Module):
    """A tower in which others read what a convolution and a linear layer put out, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.fc, self.act = nn.Linear(8, 8), nn.GELU()
        nn.init.uniform_(self.bn.weight, 0.5, 1.5)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = self.conv(values)
        values = (values + self.bn(values)).mean(dim=(2, 3))
        values = self.fc(values)
        total: torch.Tensor = values + self.act(values)
        return total


def test_what_would_change_features_is_taken_back_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    plain = _ReadsTwice().eval()
    fast = fast_tower(copy.deepcopy(plain), image_size=SIDE, dtype=torch.float32, device=CPU)
    assert torch.equal(features(fast, images(2)), features(plain, images(2)))
    assert [type(layer) for layer in fast.children()] == [type(layer) for layer in plain.children()]
    assert "batch norms stay" in caplog.messages[0]
    tried = PACKED_HERE * (1 + can_split())  # with split products, and without
    assert [" stay PyTorch's" in message for message in caplog.messages[1:]] == [True] * tried


@pytest.mark.parametrize("kind", ["resnet", "siglip"])
def test_layers_are_unpacked_where_the_operators_fail(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> torch.Tensor:
        raise RuntimeError("no such product")

    tower = made(kind)
    before = features(tower, images(2))
    monkeypatch.setattr(cpu_kernels._PackedLinear, "forward", broken)
    monkeypatch.setattr(cpu_kernels._PackedConvolution, "forward", broken)
    assert not cpu_kernels.pack_layers(tower, images(1))
    assert ("no such product" in caplog.text) == PACKED_HERE
    torch.testing.assert_close(features(tower, images(2)), before, atol=1e-6, rtol=0)


@pytest.mark.skipif(not can_split(), reason="this processor has no AMX, or PyTorch no MKL")
def test_large_products_are_split_and_keep_fp32s_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_kernels, "_LEAST_SPLIT_WORK_OF_FEW_ROWS", 200)
    torch.manual_seed(5)
    wide: dict[str, Any] = {"embed_dim": 256, "depth": 3, "num_heads": 4, "img_size": SIDE, "num_classes": 0}
    plain = timm.create_model("vit_base_patch16_siglip_224", **wide).eval()
    fast = fast_tower(copy.deepcopy(plain), image_size=SIDE, dtype=torch.float32, device=CPU)
    assert any(type(layer) is cpu_kernels._SplitLinear for layer in fast.modules())
    difference = (features(fast, images(3)) - features(plain, images(3))).abs().max()
    assert 0 < difference < 3e-6


@pytest.mark.parametrize(
    ("ins", "outs", "rows", "expected"),
    [
        (384, 1536, 577, True),  # PE-Core-S-16-384
        (1536, 384, 577, True),
        (384, 384, 577, False),
        (768, 768, 197, True),  # ViT-B-16
        (768, 768, 50, False),  # ViT-B-32
        (768, 3072, 50, True),
        (768, 3072, 1, False),  # the class token's MLP
    ],
)
def test_a_product_is_split_where_that_was_measured_to_be_faster(
    ins: int, outs: int, rows: int, expected: bool
) -> None:
    assert cpu_kernels._split_pays(torch.empty((outs, ins), device="meta"), rows) == expected


@pytest.mark.skipif(not can_split(), reason="this processor has no AMX, or PyTorch no MKL")
@pytest.mark.parametrize("count", [0, 1, 7, split_product._FEW_ROWS, split_product._FEW_ROWS + 1])
def test_a_split_product_keeps_16_bits_of_each_factor_with_any_number_of_rows(count: int) -> None:
    generator = torch.Generator().manual_seed(3)
    outs = split_product._FEW_ROWS_OUTPUTS + 88
    weight, values, bias = (torch.randn(shape, generator=generator) for shape in ((outs, 96), (count, 96), (outs,)))
    product = SplitWeight(weight).multiply(values, bias)
    exact, size = (left @ right.T for left, right in ((values.double(), weight.double()), (values.abs(), weight.abs())))
    assert product.shape == (count, outs)
    # 2**-17 of each factor, and fp32's sums; bf16 alone is wrong by up to 2**-8.
    assert bool(((product - bias - exact).abs() <= size * 2**-15 + 1e-6).all())


@pytest.mark.skipif(not can_split(), reason="this processor has no AMX, or PyTorch no MKL")
def test_a_rounded_product_is_of_bf16_factors_and_added_up_in_fp32() -> None:
    generator = torch.Generator().manual_seed(3)
    weight, values = (torch.randn(shape, generator=generator) for shape in ((48, 640), (5, 640)))
    rounded = SplitWeight(weight, rounded=True)
    expected = values.bfloat16().double() @ weight.bfloat16().double().T
    for _ in range(2):
        torch.testing.assert_close(rounded.multiply(values, None).double(), expected, atol=1e-3, rtol=0)
        if rounded._remainder.numel():
            assert torch.equal(rounded.whole(), weight)
        rounded.drop_remainder()


@pytest.mark.skipif(not can_split(), reason="this processor has no AMX, or PyTorch no MKL")
def test_a_split_that_loses_digits_is_taken_back_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu_kernels, "_split_pays", lambda *_: True)

    def rounded(weight: SplitWeight, values: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return values @ weight._parts[:, : values.shape[-1]].float().T + bias

    monkeypatch.setattr(SplitWeight, "multiply", rounded)
    plain = made("siglip")
    fast = copy.deepcopy(plain)
    assert cpu_kernels.pack_layers(fast, images(1))
    assert "bf16 parts" in caplog.text
    packed = [layer for layer in fast.modules() if type(layer) is cpu_kernels._PackedLinear]
    linear = [layer for layer in plain.modules() if type(layer) is nn.Linear]
    assert len(packed) == len(linear)
    for ours, theirs in zip(packed, linear, strict=True):
        assert torch.equal(ours.unpacked().weight, theirs.weight)


@pytest.mark.parametrize("kind", ["pe-core", "eva02"])
@pytest.mark.parametrize("case", ["merged", "wrong", "norm between"])
def test_rotations_are_merged_into_projections_or_left_alone(
    kind: str, case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tower = made(kind)
    if case == "norm between":
        tower.blocks[1].attn.q_norm = nn.LayerNorm(24)
    elif case == "wrong":
        monkeypatch.setattr(rotation._RotatedProjection, "forward", lambda layer, values: layer.projection(values))
    expected = features(tower, images(2))
    kinds = [type(layer) for layer in tower.modules()]
    simple = simplification.simplify_tower(tower, images(1))
    torch.testing.assert_close(features(simple, images(2)), expected, atol=1e-6, rtol=0)
    assert (simple.rope is None) == (case == "merged")
    assert ("positions are rotated" in caplog.text) == (case == "wrong")
    if case != "merged":
        assert [kind for kind in map(type, simple.modules()) if kind is not simplification._FirstToken] == kinds


@pytest.mark.parametrize("reads_all", [False, True])
def test_the_last_mlp_takes_the_class_token_alone_where_no_other_is_read(
    reads_all: bool, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(6)
    tower: Any = VisionTransformer(SIDE, 16, 32, 2, 2, 4.0, output_dim=16).eval()
    if reads_all:
        tower.ln_post = _Mean(tower.ln_post)
    rows: list[int] = []
    tower.transformer.resblocks[-1].mlp.register_forward_pre_hook(lambda _, values: rows.append(values[0].shape[1]))
    expected = features(tower, images(2))
    simple = simplification.simplify_tower(tower, images(1))
    rows.clear()
    torch.testing.assert_close(features(simple, images(2)), expected, atol=1e-6, rtol=0)
    assert rows == ([17] if reads_all else [1])
    assert ("takes all tokens" in caplog.text) == reads_all


class _Mean(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, tokens: torch.Tensor) -> Any:
        return self.norm(tokens.mean(dim=1, keepdim=True).expand_as(tokens))


@pytest.mark.skipif(not can_split(), reason="this processor has no AMX, or PyTorch no MKL")
@pytest.mark.parametrize("count", [1, 2, 70])
@pytest.mark.parametrize("bias", [torch.linspace(-1, 1, 96), None])
def test_a_split_product_is_the_product_and_leaves_what_it_reads(count: int, bias: torch.Tensor | None) -> None:
    torch.manual_seed(7)
    weight, values = torch.randn(96, 320), torch.randn(count, 320)
    split = SplitWeight(weight)
    before = None if bias is None else bias.clone()
    expected = functional.linear(values.double(), weight.double(), None if bias is None else bias.double())
    for _ in range(2):
        torch.testing.assert_close(split.multiply(values, bias).double(), expected, atol=1e-3, rtol=0)
    assert bias is None or before is None or torch.equal(bias, before)
    assert torch.equal(split.whole(), weight)
