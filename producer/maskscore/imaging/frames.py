"""Frames: which part of the image is cropped for a box, and how that becomes the model's square. Pillow alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image

from maskscore.imaging.clip_transform import square
from maskscore.imaging.treatments import border_colour
from maskscore.schema import View

if TYPE_CHECKING:
    from maskscore.schema import Box

__all__ = ["fitted_size", "framed", "window"]


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


def framed(crop: Image.Image, view: View, size: int) -> Image.Image:
    """Return the ``size`` × ``size`` picture of a treated crop.

    ``cut``: see :func:`maskscore.imaging.clip_transform.square`. ``pad`` and ``context``: the longer side becomes
    ``size`` by the same antialiased bicubic, and what is missing on the shorter one is filled with
    :func:`~maskscore.imaging.treatments.border_colour`, half of it on each side (an odd pixel on the right or below).
    """
    if view.frame == "cut":
        return square(crop, size)
    width, height = fitted_size(crop.width, crop.height, size)
    resized = crop.resize((width, height), Image.Resampling.BICUBIC)
    if width == height == size:
        return resized
    picture = Image.new("RGB", (size, size), border_colour(view.treatment))
    picture.paste(resized, ((size - width) // 2, (size - height) // 2))
    return picture


def fitted_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Return a crop's ``(width, height)`` when its longer side is ``size``; of the shorter one a pixel is left."""
    longer = max(width, height)
    return max(1, math.floor(size * width / longer + 0.5)), max(1, math.floor(size * height / longer + 0.5))


def _around(start: int, length: int, side: int, limit: int) -> tuple[int, int]:
    side = min(side, limit)
    return min(max(0, start - (side - length) // 2), limit - side), side
