"""Treatments on arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskscore.imaging import treat_picture
from maskscore.schema import View

__all__ = ["treat"]


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
