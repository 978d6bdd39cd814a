"""Crops made on the CPU: one region of an image → the square crop that the model sees, as uint8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskscore.imaging import ClipTransform, framed, treat_picture, window
from maskscore.schema import Box, View
from maskscore_worker.crops.cropper import CropsOneByOne, ImageCrops
from maskscore_worker.crops.resize import resize_square
from maskscore_worker.masks import Region

__all__ = ["CpuCropper", "make_crop", "treat", "widened"]

Pixels = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CpuCropper:
    """Crops ``(n, size, size, 3)`` uint8 by :func:`make_crop`."""

    transform: ClipTransform
    exact: bool

    def memory(self, shape: tuple[int, int, int]) -> Pixels:
        """See :class:`~maskscore_worker.crops.cropper.Cropper`."""
        return np.empty(shape, np.uint8)

    def open(self, pixels: Pixels) -> ImageCrops:
        """See :class:`~maskscore_worker.crops.cropper.Cropper`."""
        return CropsOneByOne(lambda region, view: self._crop(pixels, region, view))

    def _crop(self, pixels: Pixels, region: Region, view: View) -> Pixels:
        return make_crop(pixels, region.box, region.bits, view, transform=self.transform, exact=self.exact)


def make_crop(
    pixels: npt.NDArray[np.uint8],
    box: Box,
    bits: Bits,
    view: View,
    *,
    transform: ClipTransform,
    exact: bool = True,
) -> npt.NDArray[np.uint8]:
    """Crop, treat, make square.

    ``pixels`` is ``(H, W, 3)`` uint8 RGB, ``box`` is XYWH, ``bits`` ``(h, w)`` bool. Returns ``(size, size, 3)`` uint8;
    with the frame ``cut`` it is what open_clip's inference transform gives before it normalises. To the bit where it is
    to be ``exact``, but for thin, long masks (see :meth:`~maskscore.imaging.ClipTransform.is_sliver`); else within two
    grey levels and in half the time. The other frames, which are Pillow's in any case, are in
    :mod:`maskscore.imaging.frames`.
    """
    x, y, width, height = seen = window(box, view, (pixels.shape[1], pixels.shape[0]))
    inside = widened(bits, box, seen)
    treated = treat(pixels[y : y + height, x : x + width], inside, view, longer_side=max(box[2:]))
    if view.frame == "cut" and not exact:
        return resize_square(treated, transform)
    return np.asarray(framed(Image.fromarray(np.ascontiguousarray(treated)), view, transform))


def treat(
    crop: npt.NDArray[np.uint8], bits: npt.NDArray[np.bool_], view: View, *, longer_side: int
) -> npt.NDArray[np.uint8]:
    """Return the treated crop.

    ``crop`` is ``(h, w, 3)`` uint8 and stays as it is; ``bits`` is ``(h, w)`` bool, true inside the mask;
    ``longer_side`` is that of the mask's box, in pixels. The result is a new array, or the crop itself for
    ``raw_crop``.
    """
    if view.treatment == "raw_crop":
        return crop
    # Pillow looks values up and pastes by a mask in a quarter of the time that NumPy's indexing takes.
    image = Image.fromarray(np.ascontiguousarray(crop))
    treated = treat_picture(image, Image.fromarray(bits), view, longer_side=longer_side)
    return np.array(treated)  # writable, as PyTorch wants it


def widened(bits: Bits, box: Box, window: Box) -> Bits:
    """Return a mask's ``(h, w)`` bits within a window around its box; both are XYWH."""
    if window == box:
        return bits
    wide = np.zeros((window[3], window[2]), bool)
    left, top = box[0] - window[0], box[1] - window[1]
    wide[top : top + box[3], left : left + box[2]] = bits
    return wide
