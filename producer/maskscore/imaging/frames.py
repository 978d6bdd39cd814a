"""Frames: which part of the image is cropped for a box, and how that becomes the model's square. Pillow alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from maskscore.imaging.clip_transform import Placement, place
from maskscore.imaging.treatments import border_colour
from maskscore.schema import View

if TYPE_CHECKING:
    from PIL import Image

    from maskscore.imaging.clip_transform import ClipTransform
    from maskscore.schema import Box

__all__ = ["fitted_size", "frame_fill", "frame_placement", "framed", "window"]


def window(box: Box, view: View, image_size: tuple[int, int]) -> Box:
    """Return the part of the image (``(width, height)`` pixels) that is cropped for a mask's box, XYWH.

    ``cut`` and ``pad``: the box. ``context``: the square around the box's middle whose side is the box's longer one and
    ``view.context`` of it more on each side. Where it reaches over the image's border it is moved back inside, so that
    it holds real pixels; where it is larger than the image, it ends at the image's borders and is no square.
    """
    if view.frame != "context":
        return box
    longer = max(box[2:])
    side = longer + 2 * math.floor(view.context * longer + 0.5)
    x, width = _around(box[0], box[2], side, image_size[0])
    y, height = _around(box[1], box[3], side, image_size[1])
    return x, y, width, height


def framed(crop: Image.Image, view: View, transform: ClipTransform) -> Image.Image:
    """Return the square picture of a treated crop.

    ``cut``: the model's own transform, see :meth:`maskscore.imaging.clip_transform.ClipTransform.square`. ``pad`` and
    ``context``: the longer side becomes the square's by the transform's interpolation, and what is missing on the
    shorter one is filled with :func:`~maskscore.imaging.treatments.border_colour`, half of it on each side (an odd
    pixel on the right or below).
    """
    if view.frame == "cut":
        return transform.square(crop)
    placement = frame_placement(crop.width, crop.height, view, transform)
    return place(crop, placement, transform, frame_fill(view, transform))


def frame_placement(width: int, height: int, view: View, transform: ClipTransform) -> Placement:
    """Return where a crop of ``width`` × ``height`` pixels lands in the square under a view."""
    if view.frame == "cut":
        return transform.placement(width, height)
    size = transform.size
    wide, high = fitted_size(width, height, size)
    return Placement(wide, high, -((size - wide) // 2), -((size - high) // 2))


def frame_fill(view: View, transform: ClipTransform) -> tuple[int, int, int]:
    """Return what a square is filled up with under a view, RGB."""
    return transform.fill if view.frame == "cut" else border_colour(view.treatment)


def fitted_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Return a crop's ``(width, height)`` when its longer side is ``size``; of the shorter one a pixel is left."""
    longer = max(width, height)
    return max(1, math.floor(size * width / longer + 0.5)), max(1, math.floor(size * height / longer + 0.5))


def _around(start: int, length: int, side: int, limit: int) -> tuple[int, int]:
    side = min(side, limit)
    return min(max(0, start - (side - length) // 2), limit - side), side
