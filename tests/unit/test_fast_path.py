"""A fast path that gives other values than the plain one is stepped down, whichever part of it is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from maskscore.settings import WorkerSettings
from maskscore_worker.crops import CpuCropper, Cropper
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.model import ClipModel, CudaGraphEncoder, cpu_kernels
from maskscore_worker.model import clip as clip_module
from maskscore_worker.model.checkpoint import read_checkpoint
from maskscore_worker.model.folding import fold_normalisation
from maskscore_worker.model.split_product import can_split
from maskscore_worker.pipeline import fast_path as fast_path_module
from maskscore_worker.pipeline import loading
from maskscore_worker.pipeline.fast_path import FastPath, Known, PathDiffersError, wrong_features
from maskscore_worker.pipeline.loading import choose_cropper, fast_batcher, load_compared_model
from maskscore_worker.pipeline.probe_crops import PROBES, make_probe_crops

CPU = torch.device("cpu")
ON_EACH_DEVICE = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]
SETTINGS = WorkerSettings(weights=DEMO_WEIGHTS, prompts="demo", device="cpu")
Loaded = tuple[ClipModel, Any, Known, dict[str, str]]


@pytest.fixture(scope="module", params=ON_EACH_DEVICE)
def loaded(request: pytest.FixtureRequest) -> Loaded:
    return load_compared_model(SETTINGS, torch.device(request.param))


def path(loaded: Loaded, **others: Any) -> FastPath:
    model, _, known, stepped_down = loaded
    given = {
        "cropper": choose_cropper("auto", model, crop_mode="fast"),
        "encode": model.encode_images,
        "plain_cropper": CpuCropper(model.preprocessing.known, exact=True),
        "plain_encode": model.encode_images,
        "graphs": None,
        "known": known,
        "stepped_down": stepped_down,
        "spot_check_share": 0.0,
        **others,
    }
    return FastPath(**given)


class Darker:
    """A cropper that is wrong by three grey levels in one place."""

    def __init__(self, cropper: Cropper) -> None:
        self.cropper = cropper

    def open(self, pixels: Any) -> Any:
        image = self.cropper.open(pixels)

        class Wrong:
            def make(self, *given: Any) -> Any:
                crops = image.make(*given)
                crops[:, 5, 5] ^= 3
                return crops

        return Wrong()


def swapped(encode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda crops: encode(crops)[::-1]


def test_what_is_right_is_left_as_it_is(loaded: Loaded) -> None:
    assert loaded[1] == "fast"
    assert loaded[3] == {}
    checked = path(loaded)
    checked.check()
    assert checked.stepped_down == ()


@pytest.mark.parametrize("device", ON_EACH_DEVICE)
def test_a_start_finds_nothing_wrong_and_threads_that_meet_get_their_own_features(device: str) -> None:
    settings = SETTINGS.model_copy(update={"device": device, "precision": "auto", "spot_check_share": 0.0})
    model, crop_mode, known, stepped_down = load_compared_model(settings, torch.device(device))
    _, _, started = fast_batcher(settings, model, crop_mode, known, stepped_down, lambda _: None)
    started.check()
    assert started.reasons == {}

    def work(first: int) -> None:
        for number in range(first, first + 12):
            # As task threads and the batcher's do, each with other crops, of other batch sizes.
            crops = np.roll(known.crops, number, axis=0)[: 1 + number % PROBES]
            expected = np.roll(known.features, number, axis=0)[: 1 + number % PROBES]
            assert wrong_features(started.encode, crops, expected, known.tolerance) == ""
            assert started._wrong_crops() == ""

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(work, first) for first in (0, 1)]:
            done.result()


def test_wrong_crops_are_made_on_the_cpu(loaded: Loaded, caplog: pytest.LogCaptureFixture) -> None:
    plain = CpuCropper(loaded[0].preprocessing.known, exact=True)
    checked = path(loaded, cropper=Darker(plain))
    checked.check()
    assert checked.stepped_down == ("crops",)
    assert "crops: the plain path is taken" in caplog.text
    np.testing.assert_array_equal(make_probe_crops(checked), make_probe_crops(plain))


def test_a_wrong_forward_is_the_plain_one(loaded: Loaded) -> None:
    checked = path(loaded, encode=swapped(loaded[0].encode_images))
    checked.check()
    assert checked.stepped_down == ("forward",)
    known = loaded[2]
    np.testing.assert_allclose(checked.encode(known.crops), known.features, atol=1e-4)
    wrong = swapped(loaded[0].encode_images)
    with pytest.raises(PathDiffersError, match="MASKSCORE_DEVICE=cpu"):
        path(loaded, encode=wrong, plain_encode=wrong).check()


def test_a_graph_of_one_size_that_is_wrong_is_run_plainly(loaded: Loaded) -> None:
    model, _, known, _ = loaded
    graphs = CudaGraphEncoder(
        model.image_tower, shape=known.crops.shape[1:], dtype=torch.uint8, device=model.device, sizes=[1, 2, 4]
    )
    broken = graphs._batches[2]
    graphs._batches[2] = type(broken)(broken.crops, broken.features, lambda: None)  # replays nothing
    checked = path(loaded, graphs=graphs, encode=graphs.encode)
    checked.check()
    assert checked.stepped_down == ("graphs",)
    assert "batches of 2 give" in checked.reasons["graphs"]
    np.testing.assert_allclose(graphs.encode(known.crops[:2]), known.features[:2], atol=1e-4)


def test_threads_that_disturb_each_other_take_turns(loaded: Loaded) -> None:
    encode, inside, both = loaded[0].encode_images, threading.Semaphore(1), threading.Barrier(2)

    def disturbed(crops: Any) -> Any:
        alone = inside.acquire(blocking=False)
        try:
            # Two that come together meet; one that comes alone goes on.
            if threading.current_thread().name.startswith("check-") and not isinstance(checked._turn, _LOCK):
                both.wait(timeout=60)
            return encode(crops) if alone else encode(crops)[::-1]
        finally:
            if alone:
                inside.release()

    checked = path(loaded, encode=disturbed)
    checked.check()
    assert checked.stepped_down == ("threads",)


_LOCK = type(threading.RLock())


def test_a_spot_check_finds_what_became_wrong_later(loaded: Loaded, caplog: pytest.LogCaptureFixture) -> None:
    encode, known, outcomes = loaded[0].encode_images, loaded[2], list[bool]()
    wrong = threading.Event()
    checked = path(
        loaded,
        encode=lambda crops: encode(crops)[::-1] if wrong.is_set() else encode(crops),
        spot_check_share=0.1,
    )
    checked.on_spot_check = outcomes.append
    checked.through = checked._encode
    every = round(PROBES / 0.1)
    for _ in range(every // PROBES):
        checked.encode(known.crops)
    checked.wait_for_spot_check()
    assert (outcomes, checked.stepped_down) == ([True], ())
    wrong.set()
    checked.through = lambda crops: checked._encode(crops)
    for _ in range(every // PROBES):
        checked.encode(known.crops)
    checked.wait_for_spot_check()
    assert (outcomes, checked.stepped_down) == ([True, False], ("forward",))
    assert "may be wrong" in caplog.text
    np.testing.assert_allclose(checked.encode(known.crops), known.features, atol=1e-4)


def test_layers_that_are_replaced_wrongly_stay_open_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = (0.9, 0.1, 0.4)
    monkeypatch.setattr(clip_module, "fold_normalisation", lambda model, _, std: fold_normalisation(model, wrong, std))
    _, crop_mode, _, stepped_down = load_compared_model(SETTINGS, CPU)
    assert crop_mode == "fast"
    assert list(stepped_down) == ["forward"]


def test_a_precision_that_is_wrong_becomes_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fast_path_module.TOLERANCE, "bf16", 1e-6)
    model, _, _, stepped_down = load_compared_model(SETTINGS.model_copy(update={"precision": "bf16"}), CPU)
    assert (model.precision, list(stepped_down)) == ("fp32", ["precision"])


@pytest.mark.skipif(not can_split(), reason="this processor has no AMX, or PyTorch no MKL")
@pytest.mark.parametrize(("limit", "value"), [("_FEWEST_ROUNDED_WEIGHTS", 10**9), ("_ROUNDED_TOLERANCE", 0.0)])
def test_a_model_no_layer_of_which_is_mixed_is_called_fp32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, limit: str, value: float
) -> None:
    mixed = SETTINGS.model_copy(update={"precision": "mixed"})
    model, crop_mode, _, stepped_down = load_compared_model(mixed, CPU)
    assert (model.identity(crop_mode).precision, stepped_down) == ("mixed", {})
    monkeypatch.setattr(cpu_kernels, limit, value)
    model, crop_mode, _, stepped_down = load_compared_model(mixed, CPU)
    assert (model.identity(crop_mode).precision, list(stepped_down)) == ("fp32", ["precision"])
    assert "precision: the plain path is taken instead of the fast one: in mixed, no layer of" in caplog.text


@pytest.mark.parametrize("device", ON_EACH_DEVICE)
@pytest.mark.parametrize("scale", [1.0, 30_000.0])
def test_weights_that_overflow_in_fp16_are_served_in_fp32(
    monkeypatch: pytest.MonkeyPatch, scale: float, device: str
) -> None:
    monkeypatch.setattr(loading, "choose_precision", lambda *_: "fp16")

    def loaded_tensors(path: Any) -> Any:
        tensors = read_checkpoint(path)
        blocks = max(int(key.split(".")[3]) for key in tensors if key.startswith("visual.transformer.resblocks."))
        for name in ("weight", "bias"):
            tensors[f"visual.transformer.resblocks.{blocks}.mlp.c_proj.{name}"] *= scale
        return tensors

    monkeypatch.setattr(clip_module, "read_checkpoint", loaded_tensors)
    model, crop_mode, _, stepped_down = load_compared_model(SETTINGS, torch.device(device))
    if scale == 1:
        assert (model.precision, stepped_down) == ("fp16", {})
        return
    assert (model.precision, list(stepped_down)) == ("fp32", ["precision"])
    assert "a layer's values reach" in stepped_down["precision"]
    assert model.identity(crop_mode).precision == "fp32"


def test_a_layer_that_its_first_forward_spoils_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    encode, calls = ClipModel.encode_images, list[int]()

    def spoiled(model: ClipModel, crops: Any) -> Any:
        calls.append(len(crops))
        features = encode(model, crops)
        return features if len(calls) == 1 else -features

    monkeypatch.setattr(ClipModel, "encode_images", spoiled)
    with pytest.raises(PathDiffersError):
        load_compared_model(SETTINGS, CPU)
    assert calls[:2] == [PROBES, 1]


def test_crops_that_are_not_open_clips_are_made_by_its_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CpuCropper", lambda transform, exact: Darker(CpuCropper(transform, exact=exact)))
    model, crop_mode, known, stepped_down = load_compared_model(SETTINGS, CPU)
    assert (crop_mode, list(stepped_down)) == ("reference", ["crops"])
    assert known.crops.shape == (PROBES, 3, model.image_size, model.image_size)
