"""The report's pictures: the scored photo, a mask as a translucent layer, the crop that the model saw, thumbnails."""

from __future__ import annotations

import base64
import io
import warnings
from typing import Final

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from maskscore.imaging import TURNS, ClipTransform, framed, open_picture, to_rgb, treat_picture, window
from maskscore.schema import Box, ImageInfo, View

__all__ = [
    "PhotoError",
    "crop_picture",
    "crop_uri",
    "data_uri",
    "layer",
    "mask_thumbnail",
    "open_photo",
    "photo_thumbnail",
]

# A crop of a photo as PNG takes ten times its JPEG; pages of thousands of masks must still open.
_MOST_PNG_BYTES: Final = 16_000

_FILL_OPACITY: Final = 0.42

_PHOTO_SIDE: Final = 112
_MASK_SIDE: Final = 184
# The view's margin, so that thumbnails and crops show the same surroundings.
_THUMBNAIL_VIEW: Final = View(frame="context")


class PhotoError(ValueError):
    """The bytes are not, or no longer, the picture that was scored."""


def open_photo(data: bytes, info: ImageInfo) -> Image.Image:
    """Return the picture as it was scored: RGB, turned where ``info`` says so, transparency on grey.

    Raises :class:`PhotoError`, with a sentence, for bytes that Pillow cannot (or, for their size, will not) read and
    for a picture of another size than the scored one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = open_picture(data)
            image.load()
            photo, _ = to_rgb(image)
    except Exception as error:  # Pillow's plugins raise whatever they meet in damaged bytes
        raise PhotoError(f"The image cannot be read: {error or type(error).__name__}.") from error
    if info.orientation_applied and info.exif_orientation in TURNS:
        photo = photo.transpose(TURNS[info.exif_orientation])
    if photo.size != (info.width, info.height):
        raise PhotoError(
            f"The image has changed: it is of {photo.width} × {photo.height} pixels now, the scored one was of "
            f"{info.width} × {info.height}."
        )
    return photo


def layer(mask_picture: Image.Image, colour: str, scale: float, *, fill: float = _FILL_OPACITY) -> Image.Image:
    """Return a mask's layer at the page's ``scale``: filled translucently, outlined, clear elsewhere."""
    size = (max(1, round(mask_picture.width * scale)), max(1, round(mask_picture.height * scale)))
    inside = mask_picture.resize(size, Image.Resampling.BOX)
    eroded = ImageOps.expand(inside, border=2).filter(ImageFilter.MinFilter(3)).crop((2, 2, 2 + size[0], 2 + size[1]))
    outline = ImageChops.subtract(inside, eroded)
    alpha = ImageChops.lighter(inside.point(lambda value: value * fill), outline)
    picture = Image.new("RGB", size, colour)
    picture.putalpha(alpha)
    return picture.quantize(64, method=Image.Quantize.FASTOCTREE)


def crop_picture(
    photo: Image.Image, mask_picture: Image.Image, box: Box, *, view: View, transform: ClipTransform
) -> Image.Image:
    """Return the square crop that the model saw under a view, before it was normalised.

    ``mask_picture`` is the mask within its box, ``L`` with 0 and 255. The result equals the worker's crop to the bit:
    treatment at full resolution, then the frame.
    """
    x, y, width, height = window(box, view, photo.size)
    crop = photo.crop((x, y, x + width, y + height))
    inside = Image.new("L", crop.size)
    inside.paste(mask_picture, (box[0] - x, box[1] - y))
    return framed(treat_picture(crop, inside, view, longer_side=max(box[2:])), view, transform)


def crop_uri(crop: Image.Image, *, most_bytes: int = _MOST_PNG_BYTES, quality: int = 88) -> str:
    """Return a crop as a ``data:`` URI: lossless up to ``most_bytes``, else as JPEG of a ``quality`` (1 to 95)."""
    exact = data_uri(crop, "PNG")
    return exact if len(exact) * 3 // 4 <= most_bytes else data_uri(crop, "JPEG", quality=quality, subsampling=0)


def data_uri(picture: Image.Image, format_: str, **options: int | bool) -> str:
    """Return the picture as a ``data:`` URI."""
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return f"data:image/{format_.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def photo_thumbnail(photo: Image.Image) -> str:
    """Return the photo as a small JPEG, as a ``data:`` URI."""
    scale = _PHOTO_SIDE / max(photo.size)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return data_uri(photo.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0), "JPEG", quality=62)


def mask_thumbnail(photo: Image.Image, mask_picture: Image.Image, box: Box, colour: str) -> str:
    """Return one mask as a small JPEG, as a ``data:`` URI: its box with a quarter around it, the mask in ``colour``.

    ``mask_picture`` is the mask inside its ``box``, as :func:`maskscore.imaging.mask_pictures.component_bits` draws it.
    """
    left, top, width, height = window(box, _THUMBNAIL_VIEW, photo.size)
    scale = _MASK_SIDE / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # What is around the mask steps back, so that the mask is seen at a glance.
    region = photo.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height), reducing_gap=2.0)
    picture = ImageEnhance.Brightness(ImageEnhance.Color(region).enhance(0.25)).enhance(0.8)
    mask_size = (max(1, round(box[2] * scale)), max(1, round(box[3] * scale)))
    place = (round((box[0] - left) * scale), round((box[1] - top) * scale))
    inside = Image.new("L", size)
    inside.paste(mask_picture.resize(mask_size, Image.Resampling.BOX), place)
    picture.paste(region, mask=inside)
    outline = layer(mask_picture, colour, scale, fill=0.0).convert("RGBA")
    picture.paste(outline, place, mask=outline)
    return data_uri(picture, "JPEG", quality=72)
