"""Small pictures for lists and contact sheets: a photo, and one mask with a little of what is around it."""

from __future__ import annotations

from typing import Final

from PIL import Image, ImageEnhance

from maskscore.imaging import window
from maskscore.report.page_pictures import data_uri, layer
from maskscore.schema import Box, View

__all__ = ["mask_thumbnail", "photo_thumbnail"]

_PHOTO_SIDE: Final = 112
_MASK_SIDE: Final = 184
# The same margin as the view's of that name, so that thumbnails and crops show the same surroundings.
_VIEW: Final = View(frame="context")


def photo_thumbnail(photo: Image.Image) -> str:
    """Return the photo as a small JPEG, as a ``data:`` URI."""
    scale = _PHOTO_SIDE / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return data_uri(photo.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0), "JPEG", quality=62)


def mask_thumbnail(photo: Image.Image, bits: Image.Image, box: Box, colour: str) -> str:
    """Return one mask as a small JPEG, as a ``data:`` URI: its box with a quarter around it, the mask in ``colour``.

    ``bits`` is the mask inside its ``box``, as :func:`maskscore.imaging.mask_pictures.component_bits` draws it.
    """
    left, top, width, height = window(box, _VIEW, photo.size)
    scale = _MASK_SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # What is around the mask steps back, so that the mask is seen at a glance.
    region = photo.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height), reducing_gap=2.0)
    picture = ImageEnhance.Brightness(ImageEnhance.Color(region).enhance(0.25)).enhance(0.8)
    mask_size = (max(1, round(box[2] * scale)), max(1, round(box[3] * scale)))
    place = (round((box[0] - left) * scale), round((box[1] - top) * scale))
    inside = Image.new("L", size)
    inside.paste(bits.resize(mask_size, Image.Resampling.BOX), place)
    picture.paste(region, mask=inside)
    outline = layer(bits, colour, scale, fill=0.0).convert("RGBA")
    picture.paste(outline, place, mask=outline)
    return data_uri(picture, "JPEG", quality=72)
