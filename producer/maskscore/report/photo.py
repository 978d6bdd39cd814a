"""An image file → the picture that the worker scored, by Pillow alone."""

from __future__ import annotations

import io
import warnings
from typing import Final

from PIL import Image, ImageCms

from maskscore.result import ImageInfo
from maskscore.treatments import FILL

__all__ = ["PhotoError", "open_photo"]

# EXIF 2.3, table 6: how the stored picture becomes the one that was seen.
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
            image = Image.open(io.BytesIO(data))
            image.load()
            photo = _to_rgb(image)
    except Exception as error:  # Pillow's plugins raise whatever they meet in damaged bytes
        raise PhotoError(f"The image cannot be read: {error or type(error).__name__}.") from error
    if info.orientation_applied and info.exif_orientation in _TURNS:
        photo = photo.transpose(_TURNS[info.exif_orientation])
    if photo.size != (info.width, info.height):
        raise PhotoError(
            f"The image has changed: it is of {photo.width} × {photo.height} pixels now, the scored one was of "
            f"{info.width} × {info.height}."
        )
    return photo


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "CMYK":
        return _from_cmyk(image)
    if image.mode.startswith(("I", "F")):
        return _from_deep(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (FILL, FILL, FILL, 255)), rgba).convert("RGB")
    return image.convert("RGB")


def _from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    """Scale 16 bits (and 32-bit integers that hold them) to 8; floats are taken as 0 to 1, or 0 to 255 above that."""
    values = image.convert("F")
    largest = float(values.getextrema()[1])  # type: ignore[arg-type]
    if image.mode == "F":
        factor = 255.0 if largest <= 1 else 1.0
    else:
        factor = 1 / 257 if largest <= 65535 else 255 / (2**31 - 1)
    # Going to L cuts the fraction off.
    return values.point(lambda value: value * factor + 0.5).convert("L").convert("RGB")
