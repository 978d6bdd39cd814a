"""A crop → the square that the model sees: open_clip's inference transform up to its normalisation, by Pillow.

The transform is the weights' own. Its resize mode says what becomes of a crop that is not square: ``shortest`` makes
the short side as long as the square's and cuts the middle out, ``squash`` distorts, ``longest`` makes the long side as
long and fills up the rest. The worker makes crops with it, the report shows them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from PIL import Image

if TYPE_CHECKING:
    from maskscore.schema import Interpolation, ModelIdentity, ResizeMode

__all__ = ["RESAMPLING", "SUPPORT", "ClipTransform", "Placement", "place", "transform_of"]

RESAMPLING: Final = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
SUPPORT: Final = {"bicubic": 2.0, "bilinear": 1.0}
"""How many source pixels on each side of its middle a resized pixel looks at, where nothing is made smaller."""

_LONG: Final = 8


class Placement(NamedTuple):
    """A crop is resized to ``width`` × ``height``; pixel ``(left, top)`` of that is the square's first.

    Where ``left`` or ``top`` is negative, or the square ends after the resized crop, it is filled up.
    """

    width: int
    height: int
    left: int
    top: int


@dataclass(frozen=True, slots=True)
class ClipTransform:
    """open_clip's inference transform (``image_transform`` in its ``transform.py``), but for the normalisation.

    ``size`` is the square's side in pixels; ``fill`` is what ``longest`` fills up with, RGB.
    """

    size: int
    resize_mode: ResizeMode = "shortest"
    interpolation: Interpolation = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)

    def __str__(self) -> str:
        return f"{self.resize_mode}, {self.interpolation}"

    def placement(self, width: int, height: int) -> Placement:
        """Return where a crop of ``width`` × ``height`` pixels lands.

        ``shortest`` is torchvision's ``Resize(size)``, which rounds the long side down, and ``CenterCrop(size)``, which
        rounds a half to the even number. ``longest`` is open_clip's ``ResizeKeepRatio`` and ``CenterCropOrPad``; of a
        short side that it would round to nothing, for which it raises, a pixel is left.
        """
        size = self.size
        if self.resize_mode == "squash":
            return Placement(size, size, 0, 0)
        if self.resize_mode == "longest":
            ratio = max(width / size, height / size)
            wide, high = max(1, round(width / ratio)), max(1, round(height / ratio))
            return Placement(wide, high, -((size - wide) // 2), -((size - high) // 2))
        wide, high = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
        return Placement(wide, high, round((wide - size) / 2.0), round((high - size) / 2.0))

    def square(self, image: Image.Image) -> Image.Image:
        """Return the ``size`` × ``size`` picture, to the bit what the transform gives but for slivers."""
        if self.is_sliver(image.width, image.height):
            return self.enlarge_middle(image)
        return place(image, self.placement(image.width, image.height), self, self.fill)

    def is_sliver(self, width: int, height: int) -> bool:
        """Return whether a crop's ends are cut off, it is to be enlarged, and it is more than 8 times as long as wide.

        The transform enlarges all of it and then cuts the ends off: of 100 × 1 pixels, 99 % of the work would be lost,
        and one row of a wide image would become a picture of gigabytes. What is made smaller needs less than the image
        does.
        """
        short, long = min(width, height), max(width, height)
        return self.resize_mode == "shortest" and short < self.size and long > _LONG * short

    def enlarge_middle(self, image: Image.Image) -> Image.Image:
        """Enlarge the short side to ``size`` and keep the middle square, without making the parts that are cut off.

        The picture of enlarging everything and then cropping, but for one or two grey levels in about one of 6,000
        values of pure noise: Pillow takes a box in single precision, which moves a sample by less than a
        ten-thousandth of a pixel. Time and memory depend on the short side and ``size`` alone.
        """
        size, resampling = self.size, RESAMPLING[self.interpolation]
        left, top, right, bottom = self._surviving_part(image.width, image.height)
        x0, x1 = self._surroundings(left, right, image.width)
        y0, y1 = self._surroundings(top, bottom, image.height)
        near = image.crop((x0, y0, x1, y1))
        # Bicubic overshoots and is clipped after each pass, so the order of the passes shows, by tens of levels. Pillow
        # chooses it by the picture's shape: a sliver that is enlarged goes sideways first, a square may not.
        sideways = near.resize((size, near.height), resampling, box=(left - x0, 0, right - x0, near.height))
        return sideways.resize((size, size), resampling, box=(0, top - y0, size, bottom - y0))

    def _surroundings(self, start: float, end: float, length: int) -> tuple[int, int]:
        """Return the whole pixels that enlarging ``start … end`` reads, with some to spare."""
        reach = int(SUPPORT[self.interpolation]) + 2
        return max(0, math.floor(start) - reach), min(length, math.ceil(end) + reach)

    def _surviving_part(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return what survives the transform of a crop: ``(left, top, right, bottom)`` in the crop's pixels.

        Resizing this part alone to the square gives the same picture, but for the rounding and clipping between
        Pillow's two passes, whose order Pillow chooses by the sizes.
        """
        wide, high, left, top = self.placement(width, height)
        across, down = width / wide, height / high
        # Pillow refuses a box that is too large in its last digit.
        return (
            left * across,
            top * down,
            min((left + self.size) * across, float(width)),
            min((top + self.size) * down, float(height)),
        )


def place(
    image: Image.Image, placement: Placement, transform: ClipTransform, fill: tuple[int, int, int]
) -> Image.Image:
    """Resize a picture by the transform's interpolation and cut or fill it up to the square, as ``placement`` says."""
    size = transform.size
    width, height, left, top = placement
    resized = image.resize((width, height), RESAMPLING[transform.interpolation])
    if min(left, top) >= 0 and left + size <= width and top + size <= height:
        return resized.crop((left, top, left + size, top + size))
    picture = Image.new("RGB", (size, size), fill)
    picture.paste(resized, (-left, -top))
    return picture


def transform_of(model: ModelIdentity) -> ClipTransform:
    """Return the transform that a result's model made its crops with."""
    if model.resize is None:
        return ClipTransform(model.image_size)
    return ClipTransform(model.image_size, model.resize.mode, model.resize.interpolation, model.resize.fill)
