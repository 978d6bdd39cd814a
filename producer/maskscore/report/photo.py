"""Decodes an image file to the picture that the worker scored, with Pillow."""

from __future__ import annotations

import warnings

from PIL import Image

from maskscore.imaging import TURNS, open_picture, to_rgb
from maskscore.schema import ImageInfo

__all__ = ["PhotoError", "open_photo"]


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
