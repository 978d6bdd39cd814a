"""Treatments on arrays."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskscore.job import Treatment
from maskscore.treatments import FILL, treatment_tables

__all__ = ["treat"]


def treat(
    crop: npt.NDArray[np.uint8], bits: npt.NDArray[np.bool_], treatment: Treatment, alpha: float
) -> npt.NDArray[np.uint8]:
    """Return the treated crop.

    ``crop`` is ``(h, w, 3)`` uint8 and stays as it is; ``bits`` is ``(h, w)`` bool, true inside the mask. The result
    is a new array, or the crop itself for ``raw_crop``.
    """
    tables = _tables(treatment, alpha)
    if tables is None:
        return crop
    inside, outside = tables
    # Pillow looks values up and pastes by a mask in a quarter of the time that NumPy's indexing takes.
    image = Image.fromarray(np.ascontiguousarray(crop))
    treated = image.point(outside) if outside else Image.new("RGB", image.size, (FILL, FILL, FILL))
    treated.paste(image.point(inside), mask=Image.fromarray(bits))
    return np.array(treated)  # writable, as PyTorch wants it


@lru_cache(maxsize=64)
def _tables(treatment: Treatment, alpha: float) -> tuple[list[int], list[int] | None] | None:
    """Return Pillow's form of the tables, for the three channels; no second one where all outside is the fill."""
    tables = treatment_tables(treatment, alpha)
    if tables is None:
        return None
    outside = None if set(tables.outside) == {FILL} else list(tables.outside) * 3
    return list(tables.inside) * 3, outside
