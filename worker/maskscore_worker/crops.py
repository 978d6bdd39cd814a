"""One region of an image → the square crop that the model sees, as uint8."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskscore.job import ScoringOptions
from maskscore.result import Box
from maskscore.treatments import centre_offset, resized_size, surviving_part
from maskscore_worker.treatments import treat

__all__ = ["make_crop"]

# A mask of one row of a wide image would become a picture of gigabytes.
_LONG = 200


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
    short side by Pillow's antialiased bicubic, then ``CenterCrop``). Of a mask more than 200 times as long
    as wide, only the part that survives the centre crop is resized, which costs a grey level here and there.
    """
    x, y, width, height = box
    treated = treat(pixels[y : y + height, x : x + width], bits, options.treatment, options.alpha)
    image = Image.fromarray(np.ascontiguousarray(treated))
    if max(width, height) > _LONG * min(width, height):
        part = surviving_part(width, height, size)
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=part))
    resized = image.resize(resized_size(width, height, size), Image.Resampling.BICUBIC)
    left, top = centre_offset(resized.width, size), centre_offset(resized.height, size)
    return np.asarray(resized.crop((left, top, left + size, top + size)))
