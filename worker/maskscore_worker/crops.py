"""One region of an image → the square crop that the model sees, as uint8."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskscore.job import ScoringOptions
from maskscore.result import Box
from maskscore.treatments import centre_offset, resized_size, surviving_part
from maskscore_worker.treatments import treat

__all__ = ["enlarge_middle", "is_sliver", "make_crop"]

_BICUBIC: Final = Image.Resampling.BICUBIC
_BICUBIC_REACH: Final = 2

_LONG: Final = 8


def make_crop(
    pixels: npt.NDArray[np.uint8],
    box: Box,
    bits: npt.NDArray[np.bool_],
    options: ScoringOptions,
    *,
    size: int,
) -> npt.NDArray[np.uint8]:
    """Crop, treat, resize.

    ``pixels`` is ``(H, W, 3)`` uint8 RGB, ``box`` is XYWH, ``bits`` ``(h, w)`` bool. Returns ``(size, size, 3)``
    uint8: to the bit what open_clip's inference transform gives before it normalises (torchvision's ``Resize`` of the
    short side by Pillow's antialiased bicubic, then ``CenterCrop``), but for thin, long masks: see
    :func:`is_sliver`, :func:`enlarge_middle`.
    """
    x, y, width, height = box
    treated = treat(pixels[y : y + height, x : x + width], bits, options.treatment, options.alpha)
    image = Image.fromarray(np.ascontiguousarray(treated))
    if is_sliver(width, height, size):
        return np.asarray(enlarge_middle(image, size))
    resized = image.resize(resized_size(width, height, size), _BICUBIC)
    left, top = centre_offset(resized.width, size), centre_offset(resized.height, size)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def is_sliver(width: int, height: int, size: int) -> bool:
    """Return whether a crop is to be enlarged and more than 8 times as long as wide.

    The transform enlarges all of it and then cuts the ends off: of 100 × 1 pixels, 99 % of the work would be lost, and
    one row of a wide image would become a picture of gigabytes. What is made smaller needs less than the image does.
    """
    return min(width, height) < size and max(width, height) > _LONG * min(width, height)


def enlarge_middle(image: Image.Image, size: int) -> Image.Image:
    """Enlarge the short side to ``size`` and keep the middle square, without making the parts that are cut off.

    The picture of enlarging everything and then cropping, but for one or two grey levels in about one of 6,000 values
    of pure noise: Pillow takes a box in single precision, which moves a sample by less than a ten-thousandth of a
    pixel. Time and memory depend on the short side and ``size`` alone.
    """
    left, top, right, bottom = surviving_part(image.width, image.height, size)
    x0, x1 = _surroundings(left, right, image.width)
    y0, y1 = _surroundings(top, bottom, image.height)
    near = image.crop((x0, y0, x1, y1))
    # Bicubic overshoots and is clipped after each pass, so the order of the passes shows, by tens of levels. Pillow
    # chooses it by the picture's shape: a sliver that is enlarged goes sideways first, a square may not.
    sideways = near.resize((size, near.height), _BICUBIC, box=(left - x0, 0, right - x0, near.height))
    return sideways.resize((size, size), _BICUBIC, box=(0, top - y0, size, bottom - y0))


def _surroundings(start: float, end: float, length: int) -> tuple[int, int]:
    """Return the whole pixels that enlarging ``start … end`` reads, with some to spare."""
    reach = _BICUBIC_REACH + 2
    return max(0, math.floor(start) - reach), min(length, math.ceil(end) + reach)
