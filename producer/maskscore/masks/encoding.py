"""COCO's run-length encoding: of masks as arrays, and its run lengths."""

from __future__ import annotations

from typing import Any

from maskscore.schema import RLE, counts_from_text

__all__ = ["encode_mask", "run_lengths"]


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


def run_lengths(rle: RLE) -> list[int]:
    """Return the run lengths of an RLE, compressed or not: column-major, the first counting zeros.

    Raises ValueError for compressed counts that are none.
    """
    return counts_from_text(rle.counts) if isinstance(rle.counts, str) else rle.counts
