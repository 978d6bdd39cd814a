"""Treatments on arrays."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from maskscore.job import Treatment
from maskscore.treatments import treatment_tables

__all__ = ["treat"]


def treat(
    crop: npt.NDArray[np.uint8], bits: npt.NDArray[np.bool_], treatment: Treatment, alpha: float
) -> npt.NDArray[np.uint8]:
    """Return the treated crop.

    ``crop`` is ``(h, w, 3)`` uint8 and stays as it is; ``bits`` is ``(h, w)`` bool, true inside the mask. The result
    is a new array, or the crop itself for ``raw_crop``.
    """
    tables = _arrays(treatment, alpha)
    if tables is None:
        return crop
    inside, outside = tables
    return np.where(bits[..., None], inside[crop], outside[crop])


@lru_cache(maxsize=64)
def _arrays(treatment: Treatment, alpha: float) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | None:
    tables = treatment_tables(treatment, alpha)
    if tables is None:
        return None
    return np.frombuffer(tables.inside, np.uint8), np.frombuffer(tables.outside, np.uint8)
