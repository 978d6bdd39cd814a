"""The interface of croppers: an image is opened once, then the crops of its regions are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from maskscore.schema import View
from maskscore_worker.masks import Region

__all__ = ["Cropper", "CropsOneByOne", "ImageCrops"]

Pixels = npt.NDArray[np.uint8]


class ImageCrops(Protocol):
    """An image whose crops can be made, by the thread that opened it."""

    def make(self, regions: Sequence[Region], view: View, check: Callable[[], None]) -> Any:
        """Return the crops of at least one region, ``(n, …)``, for the batcher; ``check`` may raise in between."""


class Cropper(Protocol):
    """Makes crops; safe to call from threads."""

    def memory(self, shape: tuple[int, int, int]) -> Pixels:
        """Return memory of this shape, not written to yet, from which :meth:`open` takes pixels the fastest."""

    def open(self, pixels: Pixels) -> ImageCrops:
        """Open an image, ``(H, W, 3)`` uint8 RGB."""


@dataclass(frozen=True, slots=True)
class CropsOneByOne:
    """The crops of an image by ``crop``, one region after the other."""

    crop: Callable[[Region, View], npt.NDArray[Any]]

    def make(self, regions: Sequence[Region], view: View, check: Callable[[], None]) -> npt.NDArray[np.generic]:
        """See :class:`ImageCrops`."""
        crops = []
        for region in regions:
            check()
            crops.append(self.crop(region, view))
        return np.stack(crops)
