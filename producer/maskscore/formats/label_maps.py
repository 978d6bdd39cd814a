"""Arrays of one image → entries: label maps and binary masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from maskscore.formats.sought import Sought
from maskscore.rle_arrays import count_labels, rles_of_labels

__all__ = ["entries_of_labels"]


def entries_of_labels(labels: npt.NDArray[Any], sought: Sought) -> list[Any]:
    """Return an entry for each value but 0 in an ``(H, W)`` array of integers; the value is its id.

    The pixels of one value are one mask, whether they touch or not.
    """
    if not labels.size or not labels.any():
        return []
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    sought.counted(count_labels(labels))
    return [{"id": value, "segmentation": rle} for value, rle in rles_of_labels(labels)]
