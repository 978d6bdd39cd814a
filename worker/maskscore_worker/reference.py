"""The specification's own code path for one mask, kept as it reads: float arithmetic, then open_clip's transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from maskscore.job import ScoringOptions
from maskscore.result import Box
from maskscore.squares import enlarge_middle, is_sliver
from maskscore.treatments import FILL, GAIN

__all__ = ["reference_crop"]

# The transform makes a picture of up to size² × 200 pixels before it cuts the ends off: 40 MB for the usual 224.
_LONGEST: Final = 200


def reference_crop(
    pixels: npt.NDArray[np.uint8],
    box: Box,
    bits: npt.NDArray[np.bool_],
    options: ScoringOptions,
    transform: Callable[[Image.Image], torch.Tensor],
) -> torch.Tensor:
    """Return the normalised crop, ``(3, S, S)`` float32; arguments as for :func:`~maskscore_worker.crops.make_crop`.

    ``transform`` is open_clip's inference transform of the model. A mask more than 200 times as long as wide, for which
    it would take gigabytes, is given to it with its ends cut off already.
    """
    x, y, width, height = box
    crop = pixels[y : y + height, x : x + width]
    if options.treatment != "raw_crop":
        values = crop.astype(np.float64)
        outside: npt.NDArray[np.float64] | float = float(FILL)
        if options.treatment == "soft_mask":
            outside = values * (1 - options.alpha) + FILL * options.alpha
        values = np.where(bits[..., None], values * GAIN, outside)
        crop = np.clip(values, 0, 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(crop))
    if max(width, height) > _LONGEST * min(width, height):
        size = transform(Image.new("RGB", (1, 1))).shape[-1]
        if is_sliver(width, height, size):
            image = enlarge_middle(image, size)
    return transform(image)
