"""The specification's own code path for one mask: float arithmetic, then open_clip's transform.

The other treatments and frames are written here as plainly; the faster croppers are compared with this one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from maskscore.imaging import FILL, GAIN, MEAN, RESAMPLING, ClipTransform, blurred, window
from maskscore.schema import Box, View
from maskscore_worker.crops.cropper import CropsOneByOne, ImageCrops
from maskscore_worker.masks import Region

__all__ = ["ReferenceCropper", "reference_crop"]

Pixels = npt.NDArray[np.uint8]

# The transform makes a picture of up to size² × 200 pixels before it cuts the ends off: 40 MB for the usual 224.
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class ReferenceCropper:
    """Normalised crops ``(n, 3, size, size)`` float32 by the specification's own code."""

    transform: Callable[[Image.Image], torch.Tensor]
    known: ClipTransform

    def memory(self, shape: tuple[int, int, int]) -> Pixels:
        """See :class:`~maskscore_worker.crops.cropper.Cropper`."""
        return np.empty(shape, np.uint8)

    def open(self, pixels: Pixels) -> ImageCrops:
        """See :class:`~maskscore_worker.crops.cropper.Cropper`."""
        return CropsOneByOne(lambda region, view: self._crop(pixels, region, view))

    def _crop(self, pixels: Pixels, region: Region, view: View) -> npt.NDArray[Any]:
        return reference_crop(pixels, region.box, region.bits, view, self.transform, self.known).numpy()


def reference_crop(
    pixels: Pixels,
    box: Box,
    bits: npt.NDArray[np.bool_],
    view: View,
    transform: Callable[[Image.Image], torch.Tensor],
    known: ClipTransform,
) -> torch.Tensor:
    """Return the normalised crop, ``(3, S, S)`` float32; arguments as for :func:`~maskscore_worker.crops.make_crop`.

    ``transform`` is open_clip's inference transform of the model, and ``known`` what is known of it. With ``cut``, a
    mask for which it would take gigabytes, more than 200 times as long as wide, or raise, is given to it as the square
    already. The other frames give it a square of its own size, which it only normalises.
    """
    x, y, width, height = window(box, view, (pixels.shape[1], pixels.shape[0]))
    inside = np.zeros((height, width, 1), bool)
    inside[box[1] - y : box[1] - y + box[3], box[0] - x : box[0] - x + box[2], 0] = bits
    crop = _treated(pixels[y : y + height, x : x + width], inside, view, sigma=view.blur * max(box[2:]))
    image = Image.fromarray(np.ascontiguousarray(crop))
    if view.frame != "cut":
        return transform(_padded(image, known, view))
    shorter, longer = sorted((width, height))
    if known.resize_mode == "longest":
        # Its shorter side would be rounded to 0.
        too_long = longer >= 2 * known.size * shorter
    else:
        too_long = longer > _LONGEST * shorter and known.is_sliver(width, height)
    if too_long:
        image = known.square(image)
    return transform(image)


def _treated(crop: Pixels, inside: npt.NDArray[np.bool_], view: View, *, sigma: float) -> Pixels:
    if view.treatment == "raw_crop":
        return crop
    if view.treatment == "mean_fill":
        return np.where(inside, crop, np.array(MEAN, np.uint8))
    if view.treatment == "blur":
        around = blurred(Image.fromarray(np.ascontiguousarray(crop)), sigma)
        return np.where(inside, crop, np.asarray(around))
    values = crop.astype(np.float64)
    outside: npt.NDArray[np.float64] | float = float(FILL)
    if view.treatment == "soft_mask":
        outside = values * (1 - view.alpha) + FILL * view.alpha
    values = np.where(inside, values * GAIN, outside)
    return np.clip(values, 0, 255).astype(np.uint8)


def _padded(image: Image.Image, known: ClipTransform, view: View) -> Image.Image:
    size, longer = known.size, max(image.size)
    width, height = (max(1, int(size * side / longer + 0.5)) for side in image.size)
    canvas = np.empty((size, size, 3), np.uint8)
    canvas[...] = FILL if view.treatment in ("original", "soft_mask") else MEAN
    left, top = (size - width) // 2, (size - height) // 2
    resized = np.asarray(image.resize((width, height), RESAMPLING[known.interpolation]))
    canvas[top : top + height, left : left + width] = resized
    return Image.fromarray(canvas)
