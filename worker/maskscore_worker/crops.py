"""One region of an image → the square crop that the model sees, as uint8."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskscore.job import ScoringOptions
from maskscore.result import Box
from maskscore.squares import square
from maskscore_worker.resize import resize_square
from maskscore_worker.treatments import treat

__all__ = ["make_crop"]


def make_crop(
    pixels: npt.NDArray[np.uint8],
    box: Box,
    bits: npt.NDArray[np.bool_],
    options: ScoringOptions,
    *,
    size: int,
    exact: bool = True,
) -> npt.NDArray[np.uint8]:
    """Crop, treat, resize.

    ``pixels`` is ``(H, W, 3)`` uint8 RGB, ``box`` is XYWH, ``bits`` ``(h, w)`` bool. Returns ``(size, size, 3)``
    uint8: what open_clip's inference transform gives before it normalises (torchvision's ``Resize`` of the short side
    by Pillow's antialiased bicubic, then ``CenterCrop``). To the bit where it is to be ``exact``, but for thin, long
    masks (see :func:`maskscore.squares.is_sliver`); else within two grey levels and in half the time.
    """
    x, y, width, height = box
    treated = treat(pixels[y : y + height, x : x + width], bits, options.treatment, options.alpha)
    if not exact:
        return resize_square(treated, size)
    return np.asarray(square(Image.fromarray(np.ascontiguousarray(treated)), size))
