"""Masks as arrays → COCO's run-length encoding."""

from __future__ import annotations

from typing import Any

from maskscore.schema import RLE

__all__ = ["encode_mask"]


def encode_mask(mask: Any) -> RLE:
    """Return a mask as compressed RLE.

    ``mask`` is anything that NumPy takes as an ``(H, W)`` array; what is not zero is inside. Needs NumPy, which a
    producer that has arrays has. Raises ValueError for another number of dimensions or an empty array.
    """
    import numpy as np

    from maskscore.masks.arrays import rle_of_mask

    array = np.asarray(mask)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"a mask is a two-dimensional array; this one has the shape {array.shape}")
    return rle_of_mask(array)
