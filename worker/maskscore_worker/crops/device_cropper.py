"""Crops made on the device: the image is uploaded once, masks as runs, and a whole batch is cropped at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from maskscore.imaging import ClipTransform, treatment_tables, window
from maskscore.masks.arrays import Runs
from maskscore.schema import Treatment, View
from maskscore_worker.crops import torch_ops
from maskscore_worker.crops.cpu_cropper import CpuCropper
from maskscore_worker.crops.crop_plan import DevicePlan, plan_crops
from maskscore_worker.crops.cropper import ImageCrops
from maskscore_worker.masks import Region

__all__ = ["DeviceCropper"]

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
MakeCrops = Callable[[torch.Tensor, DevicePlan, torch.Tensor | None], torch.Tensor]

# Boxes of one call, in pixels; a crop that is larger is made alone.
_MOST_PIXELS: Final = 1 << 26


class DeviceCropper:
    """Crops ``(n, size, size, 3)`` uint8 as tensors on ``device``; equal to Pillow's to the bit.

    The device makes what is treated by tables. A blur is made on the CPU by
    :class:`~maskscore_worker.crops.cpu_cropper.CpuCropper`.

    Each thread has a stream of its own, before the forward's in priority, so that a job's upload and crops run beside
    another's forward. What does not fit the device's memory is made on the CPU instead.
    """

    def __init__(self, transform: ClipTransform, device: torch.device) -> None:
        self.transform = transform
        self.device = device
        self.make_crops = _best_for(device, transform)
        self.host = CpuCropper(transform, exact=True)
        self._own = threading.local()

    def memory(self, shape: tuple[int, int, int]) -> Pixels:
        """See :class:`~maskscore_worker.crops.cropper.Cropper`; memory that a GPU reads from, which PyTorch keeps."""
        pixels: Pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda").numpy()
        return pixels

    def open(self, pixels: Pixels) -> ImageCrops:
        """See :class:`~maskscore_worker.crops.cropper.Cropper`; returns before the upload has ended."""
        return _DeviceImage(self, pixels)

    def stream(self) -> AbstractContextManager[object]:
        """Make the calling thread's stream the current one inside the ``with`` block."""
        if self.device.type != "cuda":
            return nullcontext()
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self.device, priority=-1)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._own.stream)

    def wait(self) -> None:
        """Wait until what the calling thread has asked for is there; other threads run meanwhile."""
        if self.device.type == "cuda":
            ready = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            ready.record(self._own.stream)
            ready.synchronize()


class _DeviceImage:
    def __init__(self, cropper: DeviceCropper, pixels: Pixels) -> None:
        self._cropper = cropper
        self._pixels = pixels
        self._image: torch.Tensor | None = None
        try:
            with cropper.stream():
                self._image = _upload(pixels, cropper.device)
        except torch.OutOfMemoryError:
            log.warning("an image of %d x %d pixels does not fit the device's memory", *pixels.shape[1::-1])

    def make(self, regions: Sequence[Region], view: View, check: Callable[[], None]) -> torch.Tensor:
        """See :class:`~maskscore_worker.crops.cropper.ImageCrops`."""
        if view.treatment == "blur":
            return self._on_host(regions, view, check)
        try:
            return self._on_device([self._within_window(region, view) for region in regions], view, check)
        except torch.OutOfMemoryError:
            log.warning("%d crops are made on the CPU: the device's memory is full", len(regions))
        return self._on_host(regions, view, check)

    def _within_window(self, region: Region, view: View) -> Region:
        """Return the region within the part of the image that is cropped."""
        if view.frame != "context":
            return region
        box = window(region.box, view, (self._pixels.shape[1], self._pixels.shape[0]))
        return Region(region.index, region.id, region.part, box, region.area, region.image_height, region.runs)

    def _on_host(self, regions: Sequence[Region], view: View, check: Callable[[], None]) -> torch.Tensor:
        return torch.from_numpy(self._cropper.host.open(self._pixels).make(regions, view, check))

    def _on_device(self, regions: Sequence[Region], view: View, check: Callable[[], None]) -> torch.Tensor:
        cropper = self._cropper
        if self._image is None:
            raise torch.OutOfMemoryError("the image is not on the device")
        parts = []
        with torch.inference_mode(), cropper.stream():
            tables = _tables(view.treatment, view.alpha, cropper.device)
            for some in _portions(regions):
                check()
                plan = plan_crops(some, view, cropper.transform).to(cropper.device)
                parts.append(cropper.make_crops(self._image, plan, tables))
            crops = parts[0] if len(parts) == 1 else torch.cat(parts)
            # Only finished crops are handed on: nobody then needs to know of this stream, nor of its memory.
            cropper.wait()
        return crops


def _upload(pixels: Pixels, device: torch.device) -> torch.Tensor:
    image = torch.from_numpy(np.ascontiguousarray(pixels))
    # What the cropper's own memory holds is pinned already, and not copied.
    return image.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else image


def _portions(regions: Sequence[Region]) -> Iterator[Sequence[Region]]:
    start, pixels = 0, 0
    for number, region in enumerate(regions):
        own = region.box[2] * region.box[3]
        if number > start and pixels + own > _MOST_PIXELS:
            yield regions[start:number]
            start, pixels = number, 0
        pixels += own
    yield regions[start:]


@lru_cache(maxsize=64)
def _tables(treatment: Treatment, alpha: float, device: torch.device) -> torch.Tensor | None:
    tables = treatment_tables(treatment, alpha)
    if tables is None:
        return None
    both = np.frombuffer(tables.outside + tables.inside, np.uint8).reshape(2, 3, 256).copy()
    return torch.from_numpy(both).to(device)


def _best_for(device: torch.device, transform: ClipTransform) -> MakeCrops:
    """Return Triton's kernels on CUDA where they run and give what PyTorch's operations give, else these."""
    if device.type != "cuda":
        return torch_ops.make_crops
    try:
        from maskscore_worker.crops import triton_ops

        if _agrees(triton_ops.make_crops, device, transform):
            return triton_ops.make_crops
        log.warning("crops are made by PyTorch's operations: Triton's kernels give others on %s", device)
    except Exception as error:  # no Triton, no C compiler, a GPU that it does not know
        log.warning("crops are made by PyTorch's operations, not by Triton: %s: %s", type(error).__name__, error)
    return torch_ops.make_crops


def _agrees(make_crops: MakeCrops, device: torch.device, transform: ClipTransform) -> bool:
    """Compare with PyTorch's operations; what is compiled for most jobs is compiled by that, too."""
    rng = np.random.default_rng(0)
    height, width = 300, 200
    image = _upload(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), device)
    boxes = ((0, 0, width, height), (10, 20, 60, 250), (3, 5, 7, 4), (100, 0, 90, 40))
    here = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with torch.inference_mode(), here:
        for treatment, frame, count in (
            ("soft_mask", "cut", 50),
            ("mean_fill", "cut", 500),
            ("raw_crop", "cut", 50),
            ("mean_fill", "pad", 50),
        ):
            view = View(treatment=treatment, frame=frame)
            starts = np.sort(rng.choice(height * width // 7, count, replace=False)) * 7
            runs = Runs.between(starts, starts + 3)
            regions = [Region(0, "", None, box, runs.area, height, runs) for box in boxes]
            tables = _tables(treatment, 0.4, device)
            plan = plan_crops(regions, view, transform).to(device)
            ours, theirs = (make(image, plan, tables) for make in (make_crops, torch_ops.make_crops))
            if not torch.equal(ours, theirs):
                return False
    return True
