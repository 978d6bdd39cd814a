"""Arrays of one image → entries: label maps and binary masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from maskscore.formats.read_context import ReadContext
from maskscore.masks.arrays import count_labels, rles_of_labels

__all__ = ["entries_of_labels", "label_map_of"]

_LARGEST = 1 << 53


def entries_of_labels(labels: npt.NDArray[Any], context: ReadContext) -> list[Any]:
    """Return an entry for each value but the background's in an ``(H, W)`` array of integers; the value is its id.

    The background is 0 and what is below; but where -1 is the lowest value it is -1, and 0 is a mask as any other. The
    pixels of one value are one mask, whether they touch or not.
    """
    if not labels.size:
        return []
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    shift = int(labels.min() == -1)
    labels = np.maximum(labels.astype(np.int64) + 1, 0) if shift else np.maximum(labels, 0)
    if not labels.any():
        return []
    context.counted(count_labels(labels))
    return [{"id": value - shift, "segmentation": rle} for value, rle in rles_of_labels(labels)]


def label_map_of(pixels: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return an ``(H, W)`` array as a map of integers, where it is one, and ``None`` where it is one mask.

    It is a map where it has whole numbers from -1 upwards, and -1 among them or two and more above 0. (Instance maps of
    transformers, which are floats with -1 as the background, are so: ``post_process_instance_segmentation``.)
    """
    if pixels.dtype.kind not in "iuf" or not pixels.size:
        return None
    low, high = pixels.min(), pixels.max()
    # A comparison with NaN is false.
    if not (low >= -1 and high < _LARGEST and (low == -1 or high > 1)):
        return None
    if pixels.dtype.kind == "f" and not np.array_equal(pixels, np.floor(pixels)):
        return None
    labels = pixels.astype(np.int64)
    return labels if low == -1 or count_labels(labels) > 1 else None
