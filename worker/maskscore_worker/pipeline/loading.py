"""Settings → a warm pipeline: weights, prompts, cropper, and a batcher that fits the device."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from maskscore.errors import SettingsError
from maskscore.prompts import demo_warning
from maskscore.settings import CropDevice, CropMode, WorkerSettings
from maskscore.storage import Objects
from maskscore_worker.batching import Batcher
from maskscore_worker.crops import CpuCropper, Cropper, DeviceCropper, ReferenceCropper
from maskscore_worker.features import PromptFeatureCache, open_feature_cache, resolve_prompt_set
from maskscore_worker.model import (
    CROPS_PER_PASS,
    FP16_MOST,
    ClipModel,
    ComputeThreads,
    CudaGraphEncoder,
    DeviceCheck,
    choose_device,
    choose_precision,
    graph_batch_sizes,
    load_model,
)
from maskscore_worker.pipeline.fast_path import ADVICE, TOLERANCE, FastPath, Known, PathDiffersError, wrong_features
from maskscore_worker.pipeline.pipeline import Pipeline
from maskscore_worker.pipeline.probe_crops import make_probe_crops

__all__ = ["choose_cropper", "compare_fast_path", "fast_batcher", "load_compared_model", "load_pipeline"]

log = logging.getLogger("maskscore_worker")


@contextmanager
def load_pipeline(
    settings: WorkerSettings, *, worker: str, encoded: Callable[[int], None] = lambda _: None
) -> Iterator[Pipeline]:
    """Load the model, encode the default prompts, run one warm-up batch, and yield the pipeline.

    ``encoded`` is called with the number of crops of each batch that was encoded.

    Raises :class:`~maskscore.errors.SettingsError` or :class:`~maskscore.errors.WeightsError`.
    """
    if settings.weights is None:
        raise SettingsError(
            "No weights are set. Give the folder that holds open_clip_model.safetensors with --weights or "
            "MASKSCORE_WEIGHTS; `maskscore weights pull DIR` fetches one."
        )
    device = choose_device(settings.device)
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    started = time.perf_counter()
    model, crop_mode, known, stepped_down = load_compared_model(settings, device)
    prompt_features = PromptFeatureCache(model, settings.prompt_cache)
    prompt_set = resolve_prompt_set(settings.prompts, settings.prompts_dir)
    if warning := demo_warning(prompt_set, [model.weights_digest]):
        log.warning("%s", warning)
    dimensions = prompt_features.get(prompt_set).shape[1]
    cache = open_feature_cache(settings, dimensions=dimensions)
    device_check, batcher, fast_path = fast_batcher(settings, model, crop_mode, known, stepped_down, encoded)
    objects = Objects(
        buckets=settings.buckets,
        result_buckets=settings.result_buckets,
        file_roots=settings.file_roots,
        result_roots=settings.result_roots,
        timeout_s=settings.s3_timeout_s,
        pool_size=settings.concurrency + 2,
    )
    batcher.start()
    try:
        fast_path.check()
        batcher.encode(_blank(model, reference=crop_mode == "reference"))
        log.info(
            "%s on %s in %s, weights %s, prompts %r (%d), ready after %.1f s",
            model.architecture,
            device,
            model.precision,
            model.weights_digest[:19],
            prompt_set.name,
            len(prompt_set.texts),
            time.perf_counter() - started,
        )
        yield Pipeline(
            settings, crop_mode, model, fast_path, batcher, prompt_features, objects, worker, device_check, cache
        )
    finally:
        # A device that hangs must not keep the process from ending.
        if not batcher.close(timeout_s=30):
            log.error("the device did not answer; its jobs are given up")
        objects.close()
        if cache is not None:
            cache.close()


def choose_cropper(setting: CropDevice, model: ClipModel, *, crop_mode: CropMode) -> Cropper:
    """Return what makes the crops of a model: ``auto`` is the model's device where that is a GPU, else the CPU.

    In the mode ``reference`` crops are always made on the CPU.
    """
    if crop_mode == "reference":
        return ReferenceCropper(model.preprocessing.transform, model.preprocessing.known)
    if setting == "device" or (setting == "auto" and model.device.type == "cuda"):
        return DeviceCropper(model.preprocessing.known, model.device)
    # Two grey levels move a probability by half a percent at most: less than bf16 does, more than the others may.
    return CpuCropper(model.preprocessing.known, exact=model.precision != "bf16")


def compare_fast_path(settings: WorkerSettings) -> tuple[ClipModel, dict[str, str]]:
    """Load the model, and do what a worker does at its start to prove its fast path.

    Returns the model, and the parts that were stepped down with the reasons. Raises as :func:`load_pipeline` does, and
    :class:`~maskscore_worker.pipeline.fast_path.PathDiffersError`.
    """
    model, crop_mode, known, stepped_down = load_compared_model(settings, choose_device(settings.device))
    _, _, fast_path = fast_batcher(settings, model, crop_mode, known, stepped_down, lambda _: None)
    fast_path.check()
    return model, fast_path.reasons


def load_compared_model(
    settings: WorkerSettings, device: torch.device
) -> tuple[ClipModel, CropMode, Known, dict[str, str]]:
    """Load the model, and compare its forward and the CPU's crops with those of open_clip's own code.

    Returns the model, the crop mode, the plain path's values, and what was stepped down, with the reasons. Raises as
    :func:`load_pipeline` does.
    """
    assert settings.weights is not None
    load = partial(
        load_model, settings.weights, architecture=settings.model, pretrained=settings.pretrained, device=device
    )
    stepped_down: dict[str, str] = {}

    def images(model: ClipModel) -> npt.NDArray[np.float32]:
        made: npt.NDArray[np.float32] = make_probe_crops(choose_cropper("cpu", model, crop_mode="reference"))
        return made

    model = load(precision=choose_precision(settings.precision, device), probe=images)
    normalised, preprocessing = images(model), model.preprocessing
    std, mean = (np.array(values, np.float32)[:, None, None] for values in (preprocessing.std, preprocessing.mean))
    # What open_clip's transform had before it normalised.
    exact = np.rint((normalised * std + mean) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    crop_mode = settings.crop_mode
    if crop_mode == "fast" and preprocessing.foreign is not None:
        log.warning("Crops are made in the mode `reference`: %s.", preprocessing.foreign)
        crop_mode = "reference"
    if crop_mode == "fast" and not np.array_equal(make_probe_crops(CpuCropper(preprocessing.known, exact=True)), exact):
        stepped_down["crops"] = "crops by Pillow differ from those of open_clip's transform"
        log.warning("Crops are made in the mode `reference`: %s.", stepped_down["crops"])
        crop_mode = "reference"
    crops: npt.NDArray[Any] = normalised if crop_mode == "reference" else exact
    why = ""
    # The precision first: what is wrong in it alone is not wrong in fp32.
    steps: tuple[tuple[str, dict[str, Any] | None], ...] = (
        ("", None),
        ("precision", {"precision": "fp32"}),
        ("forward", {"plain": True}),
    )
    for part, others in steps:
        if part == "precision" and model.precision == "fp32":
            continue
        if others is not None:
            stepped_down[part] = why
            log.warning("%s: the plain path is taken instead of the fast one: %s", part, why)
            model = load(probe=images, **others)
        why = _too_large(model) or _not_mixed(model) or _wrong_forward(model, crop_mode, crops)
        if not why:
            break
        why = f"in {model.precision}, {why}"
    else:
        raise PathDiffersError(f"By open_clip's own layers on {device}, too, {why}. {ADVICE}")
    assert model.plain_features is not None
    levels = 2 if crop_mode == "fast" and model.precision == "bf16" else 0
    return model, crop_mode, Known(crops, model.plain_features, levels, TOLERANCE[model.precision]), stepped_down


def _too_large(model: ClipModel) -> str:
    """Say why the model's values do not fit fp16, if they do not; real images may have larger ones than known crops."""
    if model.precision != "fp16" or model.largest_value <= FP16_MOST:  # a NaN is said by what follows
        return ""
    return f"a layer's values reach {model.largest_value:,.0f}, and fp16 is taken up to {FP16_MOST:,.0f}"


def _not_mixed(model: ClipModel) -> str:
    """Say that nothing of the model is `mixed`, if that was asked for: what it computes is fp32."""
    if model.precision != "mixed" or model.rounded_layers:
        return ""
    return f"no layer of {model.architecture} is rounded: all are too small, or the features would change too much"


def _wrong_forward(model: ClipModel, crop_mode: CropMode, crops: npt.NDArray[Any]) -> str:
    """Say in what the features differ from open_clip's, at two batch sizes: the first forward may spoil the second."""
    assert model.plain_features is not None
    encode, tolerance = _encode_of(model, crop_mode), TOLERANCE[model.precision]
    return next(
        (
            wrong
            for count in (len(crops), 1)
            if (wrong := wrong_features(encode, crops[:count], model.plain_features[:count], tolerance))
        ),
        "",
    )


def _encode_of(model: ClipModel, crop_mode: CropMode) -> Callable[[Any], Any]:
    return model.encode_tensors if crop_mode == "reference" else model.encode_images


def fast_batcher(
    settings: WorkerSettings,
    model: ClipModel,
    crop_mode: CropMode,
    known: Known,
    stepped_down: dict[str, str],
    encoded: Callable[[int], None],
) -> tuple[DeviceCheck, Batcher, FastPath]:
    """Return a model's batcher, not yet started, on its fast path, not yet checked; see :func:`load_compared_model`.

    ``encoded`` is called with the number of crops of each batch.
    """
    reference = crop_mode == "reference"
    encode = plain_encode = _encode_of(model, crop_mode)
    blank = _blank(model, reference=reference)
    graphs = None
    if model.device.type != "cpu":
        crops = torch.from_numpy(blank)
        sizes = graph_batch_sizes(settings.max_batch)
        tower = model.tensor_tower if reference else model.image_tower
        graphs = CudaGraphEncoder(
            tower, shape=tuple(crops.shape[1:]), dtype=crops.dtype, device=model.device, sizes=sizes
        )
        encode = graphs.encode
        # While one batch is on the device, the next is gathered and uploaded.
        max_batch, threads = graphs.sizes[-1], 2
    else:
        threads = torch.get_num_threads()
        encode = ComputeThreads(encode, threads).encode
        max_batch = min(CROPS_PER_PASS, settings.max_batch)
    fast_path = FastPath(
        cropper=choose_cropper(settings.crop_device, model, crop_mode=crop_mode),
        encode=encode,
        plain_cropper=choose_cropper("cpu", model, crop_mode="reference")
        if reference
        else CpuCropper(model.preprocessing.known, exact=True),
        plain_encode=plain_encode,
        graphs=graphs,
        known=known,
        stepped_down=stepped_down,
        spot_check_share=settings.spot_check_share,
    )
    check = DeviceCheck(lambda: encode(blank))
    fast_path.on_broken = check.declare_broken

    def encode_and_count(crops: Any) -> Any:
        features = fast_path.encode(crops)
        encoded(len(crops))
        return features

    batcher = Batcher(
        encode_and_count,
        max_batch=max_batch,
        max_wait_s=settings.max_wait_ms / 1000,
        threads=threads,
        check_device=check.probe_after,
    )
    fast_path.through = batcher.encode
    return check, batcher, fast_path


def _blank(model: ClipModel, *, reference: bool) -> np.ndarray:
    side = model.image_size
    return np.zeros((1, 3, side, side), np.float32) if reference else np.zeros((1, side, side, 3), np.uint8)
