"""Settings → a warm pipeline: weights, prompts, cropper, and a batcher that fits the device."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
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
    ClipModel,
    ComputeThreads,
    CudaGraphEncoder,
    DeviceCheck,
    choose_device,
    choose_precision,
    graph_batch_sizes,
    load_model,
)
from maskscore_worker.pipeline.pipeline import Pipeline

__all__ = ["choose_cropper", "load_pipeline"]

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
    precision = choose_precision(settings.precision, device)
    model = load_model(
        settings.weights,
        architecture=settings.model,
        pretrained=settings.pretrained,
        device=device,
        precision=precision,
    )
    prompt_features = PromptFeatureCache(model, settings.prompt_cache)
    prompt_set = resolve_prompt_set(settings.prompts, settings.prompts_dir)
    if warning := demo_warning(prompt_set, [model.weights_digest]):
        log.warning("%s", warning)
    dimensions = prompt_features.get(prompt_set).shape[1]
    cache = open_feature_cache(settings, dimensions=dimensions)
    crop_mode = settings.crop_mode
    if crop_mode == "fast" and model.preprocessing.foreign is not None:
        log.warning("Crops are made in the mode `reference`: %s.", model.preprocessing.foreign)
        crop_mode = "reference"
    cropper = choose_cropper(settings.crop_device, model, crop_mode=crop_mode)
    device_check, batcher = _batcher(settings, model, encoded, reference=crop_mode == "reference")
    objects = Objects(
        buckets=settings.buckets,
        result_buckets=settings.result_buckets,
        file_roots=settings.file_roots,
        timeout_s=settings.s3_timeout_s,
        pool_size=settings.concurrency + 2,
    )
    batcher.start()
    try:
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
            settings, crop_mode, model, cropper, batcher, prompt_features, objects, worker, device_check, cache
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
    # Two grey levels move a probability by half a percent at most: less than bf16 does, more than fp32 may.
    return CpuCropper(model.preprocessing.known, exact=model.precision == "fp32")


def _batcher(
    settings: WorkerSettings, model: ClipModel, encoded: Callable[[int], None], *, reference: bool
) -> tuple[DeviceCheck, Batcher]:
    encode: Callable[[Any], Any]
    tower, encode = (
        (model.tensor_tower, model.encode_tensors) if reference else (model.image_tower, model.encode_images)
    )
    blank = _blank(model, reference=reference)
    if model.device.type != "cpu":
        crops = torch.from_numpy(blank)
        sizes = graph_batch_sizes(settings.max_batch)
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
    check = DeviceCheck(lambda: encode(blank))

    def encode_and_count(crops: Any) -> Any:
        features = encode(crops)
        encoded(len(crops))
        return features

    return check, Batcher(
        encode_and_count,
        max_batch=max_batch,
        max_wait_s=settings.max_wait_ms / 1000,
        threads=threads,
        check_device=check.probe_after,
    )


def _blank(model: ClipModel, *, reference: bool) -> np.ndarray:
    side = model.image_size
    return np.zeros((1, 3, side, side), np.float32) if reference else np.zeros((1, side, side, 3), np.uint8)
