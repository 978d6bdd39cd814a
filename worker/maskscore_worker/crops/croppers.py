"""Where crops are made: by the task threads on the CPU, or on the device, to which the image goes once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from maskscore.schema import View
from maskscore_worker.crops.base import make_crop
from maskscore_worker.crops.reference import reference_crop
from maskscore_worker.masks import Region

__all__ = ["CpuCropper", "Cropper", "ImageCrops", "ReferenceCropper"]

Pixels = npt.NDArray[np.uint8]


class ImageCrops(Protocol):
    """An image whose crops can be made, by the thread that opened it."""

    def make(self, regions: Sequence[Region], view: View, check: Callable[[], None]) -> Any:
        """Return the crops of at least one region, ``(n, …)``, for the batcher; ``check`` may raise in between."""


class Cropper(Protocol):
    """Makes crops; safe to call from threads."""

    def open(self, pixels: Pixels) -> ImageCrops:
        """Take an image, ``(H, W, 3)`` uint8 RGB."""


@dataclass(frozen=True, slots=True)
class CpuCropper:
    """Crops ``(n, size, size, 3)`` uint8 by :func:`~maskscore_worker.crops.base.make_crop`."""

    size: int
    exact: bool

    def open(self, pixels: Pixels) -> ImageCrops:
        """See :class:`Cropper`."""
        return _Each(lambda region, view: self._crop(pixels, region, view))

    def _crop(self, pixels: Pixels, region: Region, view: View) -> Pixels:
        return make_crop(pixels, region.box, region.bits, view, size=self.size, exact=self.exact)


@dataclass(frozen=True, slots=True)
class ReferenceCropper:
    """Normalised crops ``(n, 3, size, size)`` float32 by the specification's own code."""

    transform: Callable[[Image.Image], torch.Tensor]

    def open(self, pixels: Pixels) -> ImageCrops:
        """See :class:`Cropper`."""
        return _Each(lambda region, view: self._crop(pixels, region, view))

    def _crop(self, pixels: Pixels, region: Region, view: View) -> npt.NDArray[Any]:
        return reference_crop(pixels, region.box, region.bits, view, self.transform).numpy()


@dataclass(frozen=True, slots=True)
class _Each:
    crop: Callable[[Region, View], npt.NDArray[Any]]

    def make(self, regions: Sequence[Region], view: View, check: Callable[[], None]) -> npt.NDArray[np.generic]:
        crops = []
        for region in regions:
            check()
            crops.append(self.crop(region, view))
        return np.stack(crops)
