"""Counts the masks that fit a frame: the image as it is stored, or turned by its EXIF orientation."""

from __future__ import annotations

from collections.abc import Iterable

from maskscore.schema import RLE, Mask

__all__ = ["count_fitting"]


def count_fitting(masks: Iterable[object], height: int, width: int) -> int:
    """Return how many masks fit a frame of this size, in pixels; what is no :class:`~maskscore.schema.Mask` does not.

    An RLE fits that is of this size. Polygons fit that say so (``polygon_size``); where they say nothing, or a size
    that is neither this one nor the turned one, those inside the frame, give or take a pixel.
    """
    return sum(isinstance(mask, Mask) and _fits(mask, height, width) for mask in masks)


def _fits(mask: Mask, height: int, width: int) -> bool:
    if isinstance(mask.segmentation, RLE):
        return mask.segmentation.size == (height, width)
    if mask.polygon_size in ((height, width), (width, height)):
        return mask.polygon_size == (height, width)
    return all(
        all(-1 <= x <= width + 1 for x in part[0::2]) and all(-1 <= y <= height + 1 for y in part[1::2])
        for part in mask.segmentation
    )
