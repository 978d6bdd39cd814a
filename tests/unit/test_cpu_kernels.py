"""The CPU's faster image tower gives the same features: folding, packing, precision."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch import nn

from maskscore.errors import SettingsError
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.model.clip import load_model
from maskscore_worker.model.cpu_kernels import pack_layers
from maskscore_worker.model.folding import MIDDLE, fold_normalisation
from maskscore_worker.model.precision import BF16_ERROR, choose_precision, cpu_has_bf16, precisions_of

CPU = torch.device("cpu")
MEAN, STD = (0.48, 0.45, 0.40), (0.26, 0.27, 0.28)


@pytest.fixture(scope="module")
def tower() -> Any:
    torch.manual_seed(11)
    return open_clip.create_model(f"local-dir:{DEMO_WEIGHTS}", load_weights=False).eval()


def grey_values(count: int = 3, side: int = 64) -> torch.Tensor:
    values = np.random.default_rng(5).integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    return torch.from_numpy(values).float()


def normalised(values: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (MEAN, STD))
    return (values / 255 - mean) / std


@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_the_folded_model_is_the_unfolded_one(tower: Any, bias: bool) -> None:
    model = copy.deepcopy(tower)
    if bias:
        model.visual.conv1.bias = nn.Parameter(torch.randn(model.visual.conv1.out_channels))
    before = model.visual.conv1.weight.clone()
    folded = fold_normalisation(model, MEAN, STD)
    assert folded is not None
    values = grey_values()
    expected = model.encode_image(normalised(values))
    torch.testing.assert_close(folded.encode_image(values - MIDDLE), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(model.visual.conv1.weight, before)
    assert folded.visual.transformer is model.visual.transformer


@pytest.mark.parametrize("change", ["padding", "kind", "tower"])
def test_what_cannot_be_folded_is_left_alone(tower: Any, change: str) -> None:
    model = copy.deepcopy(tower)
    if change == "padding":
        model.visual.conv1.padding = (1, 1)
    elif change == "kind":
        model.visual.conv1 = nn.Sequential(model.visual.conv1)
    else:
        model.visual = nn.Identity()
    assert fold_normalisation(model, MEAN, STD) is None


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@torch.inference_mode()
def test_packed_layers_give_what_the_plain_ones_give(tower: Any, dtype: torch.dtype, tolerance: float) -> None:
    plain = copy.deepcopy(tower.visual)
    packed = copy.deepcopy(plain).to(dtype)
    expected_here = platform.machine().lower() in ("x86_64", "amd64")
    if dtype is torch.bfloat16:
        # oneDNN asks the processor; PyTorch's attention what it may use of it, which ATEN_CPU_CAPABILITY can limit.
        limited = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
        expected_here = expected_here and not limited and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert pack_layers(packed, normalised(grey_values(1)).to(dtype)) == expected_here
    assert any(isinstance(module, nn.MultiheadAttention) for module in packed.modules()) != expected_here
    values = normalised(grey_values())
    for some in (values, values[:1]):
        expected = plain(some)
        scale = float(expected.abs().max())
        torch.testing.assert_close(packed(some.to(dtype)).float(), expected, atol=tolerance * scale, rtol=0)


@pytest.mark.parametrize("convolution", ["folded", "not folded"])
def test_bf16_is_near_fp32_and_says_so(convolution: str) -> None:
    full, half = (load_model(DEMO_WEIGHTS, architecture="", device=CPU, precision=name) for name in ("fp32", "bf16"))
    assert (full.precision, half.precision) == ("fp32", "bf16")
    crops = np.random.default_rng(6).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    if convolution == "folded":
        ours, exact = half.encode_images(crops), full.encode_images(crops)
    else:
        tensors = np.random.default_rng(6).normal(size=(6, 3, 64, 64)).astype(np.float32)
        ours, exact = half.encode_tensors(tensors), full.encode_tensors(tensors)
    assert ours.dtype == np.float32
    assert 1e-6 < np.abs(ours - exact).max() < 0.05
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(half.encode_texts(["sky"]), full.encode_texts(["sky"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor: 0\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags : fpu amx_bf16 amx_tile\nflags : fpu\n", True),
        ("flags : fpu avx512f avx512_vnni\n", False),
        ("Features : asimd bf16\n", False),
        ("", False),
    ],
)
def test_bf16_is_chosen_by_name_alone_and_its_error_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str, expected: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_has_bf16(tmp_path / "cpuinfo") == expected
    has: Callable[[], bool] = lambda: expected  # noqa: E731
    monkeypatch.setattr("maskscore_worker.model.precision.cpu_has_bf16", has)
    caplog.set_level("INFO", "maskscore_worker.model.precision")
    assert choose_precision("fp32", CPU) == "fp32"
    assert caplog.messages == []
    assert choose_precision("auto", CPU) == "fp32"
    assert [BF16_ERROR in message for message in caplog.messages] == [True] * expected
    caplog.clear()
    assert choose_precision("bf16", CPU) == "bf16"
    assert BF16_ERROR in caplog.messages[0]
    assert ("would be faster" in caplog.text) == (not expected)


def test_fp16_is_chosen_on_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="`auto`"):
        choose_precision("fp16", CPU)
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    for capability, expected in (((6, 1), "fp32"), ((7, 0), "fp16"), ((9, 0), "fp16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert choose_precision("auto", gpu) == expected
    assert choose_precision("fp16", gpu) == "fp16"


def test_mixed_is_chosen_on_cpus_with_amx_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for amx in (True, False):
        monkeypatch.setattr("maskscore_worker.model.precision.can_split", lambda amx=amx: amx)
        assert precisions_of(CPU) == (("fp32", "mixed", "bf16") if amx else ("fp32", "bf16"))
        with pytest.raises(SettingsError, match="GPUs have"):
            choose_precision("mixed", torch.device("cuda", 0))
        if amx:
            assert choose_precision("mixed", CPU) == "mixed"
        else:
            with pytest.raises(SettingsError, match="this one has"):
                choose_precision("mixed", CPU)


def test_fp16_is_nearer_to_fp32_than_bf16() -> None:
    crops = np.random.default_rng(8).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    exact, half, coarse = (
        load_model(DEMO_WEIGHTS, architecture="", device=CPU, precision=name).encode_images(crops)
        for name in ("fp32", "fp16", "bf16")
    )
    assert 1e-7 < np.abs(half - exact).max() < np.abs(coarse - exact).max() / 2


def test_without_a_list_of_flags_there_is_no_bf16(tmp_path: Path) -> None:
    assert not cpu_has_bf16(tmp_path / "nowhere")
