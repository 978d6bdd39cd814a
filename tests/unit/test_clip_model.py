"""Loading weights strictly and without a network, and encoding prompts with them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from maskscore.errors import JobError, WeightsError
from maskscore.imaging import ClipTransform
from maskscore.prompts import load_builtin
from maskscore.settings import WorkerSettings
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene
from maskscore_worker.demo.train import crop_of
from maskscore_worker.model.clip import ClipModel, load_model
from maskscore_worker.pipeline import check_weights
from maskscore_worker.weights import digest_of

CPU = torch.device("cpu")
SAFETENSORS, BIN = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model to damage."""
    copy = tmp_path / "weights"
    shutil.copytree(DEMO_WEIGHTS, copy)
    return copy


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which anything reached for the network, even where the error that it got was caught."""
    reached: list[Any] = []
    this_thread = threading.get_ident()

    def refused(call: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*arguments: Any, **options: Any) -> Any:
            # Other tests of this process keep services with threads that talk to them.
            if threading.get_ident() != this_thread:
                return call(*arguments, **options)
            reached.append(arguments)
            raise OSError("there is no network in this test")

        return refuse

    for owner, name in ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo")):
        monkeypatch.setattr(owner, name, refused(getattr(owner, name)))
    yield
    assert not reached


def load(folder: Path) -> ClipModel:
    return load_model(folder, architecture="ViT-B-32", device=CPU)


def crops(count: int, size: int) -> Any:
    return np.random.default_rng(2).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_the_demo_model_is_what_its_folder_says(demo: ClipModel) -> None:
    assert (demo.image_size, demo.context_length, demo.precision) == (64, 32, "fp32")
    assert demo.preprocessing.known == ClipTransform(64)
    assert demo.preprocessing.foreign is None
    assert demo.architecture.startswith("custom-")
    assert demo.weights_digest == digest_of(DEMO_WEIGHTS / SAFETENSORS)
    assert 1 <= demo.logit_scale <= 100
    assert sum(file.stat().st_size for file in DEMO_WEIGHTS.iterdir()) < 6_000_000


def test_the_demo_model_knows_drawn_shapes(demo: ClipModel) -> None:
    prompts = load_builtin("demo")
    texts = demo.encode_texts(prompts.texts)
    right = total = 0
    for seed in range(660_000, 660_012):
        scene = draw_scene(seed)
        features = demo.encode_images(np.stack([crop_of(scene, mask, "original") for mask in scene.masks]))
        chosen = [prompts.texts[index] for index in (features @ texts.T).argmax(axis=1)]
        right += sum(text == mask.label for text, mask in zip(chosen, scene.masks, strict=True))
        total += len(scene.masks)
    assert right / total > 0.95


def test_a_crop_that_is_off_by_a_few_pixels_shows(demo: ClipModel) -> None:
    scene = draw_scene(660_100)
    mask = next(mask for mask in scene.masks if mask.kind == "object")
    right = demo.encode_images(crop_of(scene, mask, "original")[None])
    shifted = np.roll(crop_of(scene, mask, "original"), 4, axis=1)
    assert float((right @ demo.encode_images(shifted[None]).T).item()) < 0.999


def test_uint8_crops_and_the_transform_agree(demo: ClipModel) -> None:
    images = crops(5, 64)
    tensors = torch.stack([demo.preprocessing.transform(Image.fromarray(image)) for image in images]).numpy()
    np.testing.assert_allclose(demo.encode_images(images), demo.encode_tensors(tensors), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(demo.encode_images(images), axis=1), 1, atol=1e-5)


def test_both_files_give_the_same_model(folder: Path, demo: ClipModel) -> None:
    state = load_file(folder / SAFETENSORS)
    (folder / SAFETENSORS).unlink()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, folder / BIN)
    pickled = load(folder)
    np.testing.assert_array_equal(pickled.encode_images(crops(3, 64)), demo.encode_images(crops(3, 64)))
    np.testing.assert_array_equal(pickled.encode_texts(["sky"]), demo.encode_texts(["sky"]))
    assert pickled.weights_digest == digest_of(folder / BIN)


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """ViT-B-32 at full size with generated weights, without a configuration beside them."""
    folder = tmp_path_factory.mktemp("full")
    torch.manual_seed(3)
    state = open_clip.create_model("ViT-B-32", pretrained=None).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, folder / SAFETENSORS)
    yield folder
    shutil.rmtree(folder)


def change(folder: Path, **changes: torch.Tensor | None) -> None:
    state = load_file(folder / SAFETENSORS)
    for key, value in changes.items():
        if value is None:
            del state[key]
        else:
            state[key] = value
    save_file(state, folder / SAFETENSORS)


def test_many_keys_are_counted_and_some_named(folder: Path) -> None:
    change(folder, **{f"extra.{number}": torch.zeros(1) for number in range(9)}, logit_scale=None)
    with pytest.raises(WeightsError) as caught:
        load(folder)
    for words in ("1 missing: logit_scale", "9 unexpected: extra.0, extra.1", "extra.4 and 4 more"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"logit_scale": None}, "1 missing: logit_scale"),
        ({"extra.weight": torch.zeros(1)}, "1 unexpected: extra.weight"),
        ({"ln_final.bias": torch.zeros(3)}, "ln_final.bias is (3,), not (32,)"),
        ({"ln_final.bias": torch.full((32,), float("nan"))}, "not finite, in ln_final.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(folder: Path, changes: dict[str, Any], words: str) -> None:
    change(folder, **changes)
    with pytest.raises(WeightsError) as caught:
        load(folder)
    assert words in str(caught.value)


def test_half_precision_files_are_computed_in_full(folder: Path, demo: ClipModel) -> None:
    assert demo.stored_as == "float16"
    state = {key: value.float() for key, value in load_file(folder / SAFETENSORS).items()}
    save_file(state, folder / SAFETENSORS)
    full = load(folder)
    assert full.stored_as == "float32"
    np.testing.assert_array_equal(full.encode_images(crops(3, 64)), demo.encode_images(crops(3, 64)))


def test_fp32_is_not_rounded_to_tf32(demo: ClipModel) -> None:
    assert demo.precision == "fp32"
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_harmless_buffers_are_forgiven(folder: Path, demo: ClipModel) -> None:
    change(folder, **{"text.position_ids": torch.arange(3), "attn_mask": torch.zeros(32, 32)})
    np.testing.assert_array_equal(load(folder).encode_texts(["sky"]), demo.encode_texts(["sky"]))


class Malice:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (os.environ["MALICE"],)


def test_a_pickle_that_would_run_code_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALICE", str(tmp_path / "proof"))
    (folder / SAFETENSORS).unlink()
    (folder / BIN).write_bytes(pickle.dumps({"logit_scale": Malice()}, protocol=2))
    with pytest.raises(WeightsError, match="cannot be read"):
        load(folder)
    assert not (tmp_path / "proof").exists()


def test_damaged_and_missing_files_are_said_to_be(folder: Path, tmp_path: Path) -> None:
    data = (folder / SAFETENSORS).read_bytes()
    (folder / SAFETENSORS).write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="cannot be read"):
        load(folder)
    (folder / SAFETENSORS).unlink()
    with pytest.raises(WeightsError, match="weights pull"):
        load(folder)
    with pytest.raises(WeightsError, match="not a folder"):
        load(tmp_path / "nowhere")


def test_configurations_are_checked(folder: Path, full_size: Path) -> None:
    (folder / "open_clip_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="model_cfg"):
        load(folder)
    (folder / "open_clip_config.json").write_text('{"model_cfg": {"text_cfg": {}, "vision_cfg": 7}}')
    with pytest.raises(WeightsError, match="must be objects"):
        load(folder)
    with pytest.raises(WeightsError, match="no architecture 'ViT-X'"):
        load_model(full_size, architecture="ViT-X", device=CPU)
    with pytest.raises(WeightsError, match="does not fit ViT-B-16"):
        load_model(full_size, architecture="ViT-B-16", device=CPU)


def reconfigure(folder: Path, **changes: dict[str, Any]) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())
    for part, values in changes.items():
        target = config if part == "preprocess_cfg" else config["model_cfg"]
        target[part] = {**target.get(part, {}), **values}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


def test_mean_std_and_resize_are_the_configurations(folder: Path, demo: ClipModel) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    reconfigure(folder, preprocess_cfg={"mean": mean, "std": std, "resize_mode": "squash"})
    model = load(folder)
    assert (model.preprocessing.mean, model.preprocessing.std) == (mean, std)
    assert model.preprocessing.known == ClipTransform(64, "squash")
    assert model.preprocessing.foreign is None
    images = crops(2, 64)
    values = (images.astype(np.float32) / 255 - np.array(mean, np.float32)) / np.array(std, np.float32)
    expected = demo.encode_tensors(values.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(model.encode_images(images), expected, atol=1e-6)
    assert np.abs(model.encode_images(images) - demo.encode_images(images)).max() > 1e-3


def test_images_that_are_not_square_are_refused(folder: Path) -> None:
    state = load_file(folder / SAFETENSORS)
    positions = state["visual.positional_embedding"]
    state["visual.positional_embedding"] = torch.cat([positions, positions[1:]])
    save_file(state, folder / SAFETENSORS)
    reconfigure(folder, vision_cfg={"image_size": [64, 128]})
    with pytest.raises(WeightsError, match="only square"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text_cfg": {"hf_tokenizer_name": "someone/tokenizer"}}, "tokenizer of .* 'someone/tokenizer' from a hub"),
        ({"text_cfg": {"hf_model_name": "someone/tower"}}, "text tower of .* 'someone/tower' on a hub"),
        ({"vision_cfg": {"timm_model_name": "hf-hub:someone/tower"}}, "image tower of .* 'hf-hub:someone/tower'"),
    ],
)
def test_what_only_a_hub_could_give_is_refused(folder: Path, changes: dict[str, Any], words: str) -> None:
    reconfigure(folder, **changes)
    with pytest.raises(WeightsError, match=words):
        load(folder)


@pytest.mark.parametrize("architecture", ["ViT-B-16-SigLIP", "roberta-ViT-B-32", "hf-hub:someone/model"])
def test_an_architecture_never_sends_the_worker_to_a_hub(folder: Path, architecture: str) -> None:
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(WeightsError, match=r"a worker fetches nothing|knows no architecture"):
        load_model(folder, architecture=architecture, device=CPU)


def test_a_folder_with_the_usual_configuration_is_called_by_its_name(full_size: Path) -> None:
    folder = full_size
    config = {
        "model_cfg": open_clip.get_model_config("ViT-B-32"),
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.2] * 3},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    report = check_weights(WorkerSettings(weights=folder, model="ViT-X", device="cpu"))
    (folder / "open_clip_config.json").unlink()
    assert (report.architecture, report.details["image_size"], report.details["feature_dimension"]) == (
        "ViT-B-32",
        224,
        512,
    )
    assert report.size == report.file.stat().st_size


def test_a_prompt_longer_than_the_context_is_refused_not_cut(demo: ClipModel) -> None:
    fits = " ".join(["cat"] * 30)
    assert demo.encode_texts([fits]).shape == (1, 64)
    with pytest.raises(JobError, match="33 tokens") as caught:
        demo.encode_texts(["sky", fits + " cat"])
    assert caught.value.code == "prompt_too_long"
