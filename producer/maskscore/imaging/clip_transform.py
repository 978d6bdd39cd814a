"""A crop → the square that the model sees: open_clip's inference transform up to its normalisation, by Pillow.

The transform is torchvision's ``Resize(size)`` of the short side by antialiased bicubic, then ``CenterCrop(size)``. The
worker makes crops with it, the report shows them.
"""

from __future__ import annotations

import math
from typing import Final

from PIL import Image

__all__ = ["centre_offset", "enlarge_middle", "is_sliver", "resized_size", "square"]

_BICUBIC: Final = Image.Resampling.BICUBIC
_BICUBIC_REACH: Final = 2

_LONG: Final = 8


def square(image: Image.Image, size: int) -> Image.Image:
    """Return the ``size`` × ``size`` picture, to the bit what the transform gives but for slivers."""
    if is_sliver(image.width, image.height, size):
        return enlarge_middle(image, size)
    resized = image.resize(resized_size(image.width, image.height, size), _BICUBIC)
    left, top = centre_offset(resized.width, size), centre_offset(resized.height, size)
    return resized.crop((left, top, left + size, top + size))


def is_sliver(width: int, height: int, size: int) -> bool:
    """Return whether a crop is to be enlarged and more than 8 times as long as wide.

    The transform enlarges all of it and then cuts the ends off: of 100 × 1 pixels, 99 % of the work would be lost, and
    one row of a wide image would become a picture of gigabytes. What is made smaller needs less than the image does.
    """
    return min(width, height) < size and max(width, height) > _LONG * min(width, height)


def enlarge_middle(image: Image.Image, size: int) -> Image.Image:
    """Enlarge the short side to ``size`` and keep the middle square, without making the parts that are cut off.

    The picture of enlarging everything and then cropping, but for one or two grey levels in about one of 6,000 values
    of pure noise: Pillow takes a box in single precision, which moves a sample by less than a ten-thousandth of a
    pixel. Time and memory depend on the short side and ``size`` alone.
    """
    left, top, right, bottom = _surviving_part(image.width, image.height, size)
    x0, x1 = _surroundings(left, right, image.width)
    y0, y1 = _surroundings(top, bottom, image.height)
    near = image.crop((x0, y0, x1, y1))
    # Bicubic overshoots and is clipped after each pass, so the order of the passes shows, by tens of levels. Pillow
    # chooses it by the picture's shape: a sliver that is enlarged goes sideways first, a square may not.
    sideways = near.resize((size, near.height), _BICUBIC, box=(left - x0, 0, right - x0, near.height))
    return sideways.resize((size, size), _BICUBIC, box=(0, top - y0, size, bottom - y0))


def _surroundings(start: float, end: float, length: int) -> tuple[int, int]:
    """Return the whole pixels that enlarging ``start … end`` reads, with some to spare."""
    reach = _BICUBIC_REACH + 2
    return max(0, math.floor(start) - reach), min(length, math.ceil(end) + reach)


def resized_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Return a crop's ``(width, height)`` after torchvision's ``Resize(size)``: its short side becomes ``size``."""
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def _surviving_part(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """Return what survives open_clip's transform of a crop: ``(left, top, right, bottom)`` in the crop's pixels.

    The transform is torchvision's ``Resize(size)`` and ``CenterCrop(size)``; resizing this part alone to ``size`` ×
    ``size`` gives the same picture, but for the rounding and clipping between Pillow's two passes, whose order Pillow
    chooses by the sizes.
    """
    resized_width, resized_height = resized_size(width, height, size)
    left, top = centre_offset(resized_width, size), centre_offset(resized_height, size)
    across, down = width / resized_width, height / resized_height
    # Pillow refuses a box that is too large in its last digit.
    return (
        left * across,
        top * down,
        min((left + size) * across, float(width)),
        min((top + size) * down, float(height)),
    )


def centre_offset(length: int, size: int) -> int:
    """Return where torchvision's ``CenterCrop(size)`` starts along a side; it rounds a half to the even number."""
    return round((length - size) / 2.0)
