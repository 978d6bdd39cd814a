"""The report's pictures of one component: a translucent layer over the photo, and the crop that the model saw."""

from __future__ import annotations

import base64
import io
from typing import Final

from PIL import Image, ImageChops, ImageFilter, ImageOps

from maskscore.imaging import framed, treat_picture, window
from maskscore.schema import Box, View

__all__ = ["crop_picture", "crop_uri", "data_uri", "layer"]

# A crop of a photo as PNG takes ten times its JPEG; pages of thousands of masks must still open.
_MOST_PNG_BYTES: Final = 16_000

_FILL_OPACITY: Final = 0.42


def layer(bits: Image.Image, colour: str, scale: float, *, fill: float = _FILL_OPACITY) -> Image.Image:
    """Return a mask's layer at the page's ``scale``: filled translucently, outlined, clear elsewhere."""
    size = (max(1, round(bits.width * scale)), max(1, round(bits.height * scale)))
    inside = bits.resize(size, Image.Resampling.BOX)
    eroded = ImageOps.expand(inside, border=2).filter(ImageFilter.MinFilter(3)).crop((2, 2, 2 + size[0], 2 + size[1]))
    outline = ImageChops.subtract(inside, eroded)
    alpha = ImageChops.lighter(inside.point(lambda value: value * fill), outline)
    picture = Image.new("RGB", size, colour)
    picture.putalpha(alpha)
    return picture.quantize(64, method=Image.Quantize.FASTOCTREE)


def crop_picture(photo: Image.Image, bits: Image.Image, box: Box, *, view: View, size: int) -> Image.Image:
    """Return the ``size`` × ``size`` crop that the model saw under a view, before it was normalised.

    ``bits`` is the mask within its box, ``L`` with 0 and 255. To the bit what the worker computes: treatment at full
    resolution, then the frame.
    """
    x, y, width, height = window(box, view, photo.size)
    crop = photo.crop((x, y, x + width, y + height))
    inside = Image.new("L", crop.size)
    inside.paste(bits, (box[0] - x, box[1] - y))
    return framed(treat_picture(crop, inside, view, longer_side=max(box[2:])), view, size)


def crop_uri(crop: Image.Image, *, most_bytes: int = _MOST_PNG_BYTES, quality: int = 88) -> str:
    """Return a crop as a ``data:`` URI: lossless up to ``most_bytes``, else as JPEG of a ``quality`` (1 to 95)."""
    exact = data_uri(crop, "PNG")
    return exact if len(exact) * 3 // 4 <= most_bytes else data_uri(crop, "JPEG", quality=quality, subsampling=0)


def data_uri(picture: Image.Image, format_: str, **options: int | bool) -> str:
    """Return the picture as a ``data:`` URI."""
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return f"data:image/{format_.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
