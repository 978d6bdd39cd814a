"""Values of JSON documents, checked: lists, numbers, sizes, points, base64, and pictures inside a box."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

from maskscore.formats.image_masks import MasksDocumentError, Size
from maskscore.formats.read_context import ReadContext
from maskscore.schema import RLE

__all__ = ["bytes_of_base64", "flat_points", "inflated", "is_number", "list_of", "rle_of_picture", "size_of"]


def is_number(value: Any) -> bool:
    """Say whether a value of a JSON document is a number (and not a boolean)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def list_of(value: Any, layout: str) -> list[Any]:
    """Return a list as it is. Raises :class:`~maskscore.formats.MasksDocumentError`: the document is no such layout."""
    if not isinstance(value, list):
        raise MasksDocumentError(f"The masks are not in the layout that was asked for: {layout}.")
    return value


def size_of(height: Any, width: Any) -> Size | None:
    """Return ``(height, width)`` where both are whole numbers above 0, else ``None``."""
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        return height, width
    return None


def flat_points(points: Any) -> list[float]:
    """Return ``[x1, y1, x2, y2, ...]`` of a list of pairs of numbers. Raises ValueError for anything else."""
    pairs = points if isinstance(points, list) else []
    if not pairs or not all(isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair)) for pair in pairs):
        raise ValueError("its points are not pairs of numbers")
    return [number for pair in pairs for number in pair]


def bytes_of_base64(text: Any) -> bytes:
    """Return what a text in base64 holds. Raises ValueError for anything else."""
    if not isinstance(text, str):
        raise ValueError("its picture is not a text in base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("its picture is not a text in base64") from None


def inflated(data: bytes, most: int) -> bytes:
    """Return what zlib has packed, ``most`` bytes at most. Raises ValueError where it is more, or damaged."""
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(data, most)
        done = unpacking.eof or not unpacking.decompress(unpacking.unconsumed_tail, 1)
    except zlib.error as error:
        raise ValueError(f"its zlib data are damaged ({error})") from None
    if not done:
        raise ValueError(f"its zlib data are of more than the {most:,} bytes that a picture of the image's size takes")
    return unpacked


def rle_of_picture(png: bytes, left: int, top: int, size: Size | None, context: ReadContext) -> RLE:
    """Return the mask that a PNG shows at ``left``, ``top`` (pixels) of an image of ``size`` ``(height, width)``.

    Inside is what is not 0; of colours with transparency, what is not transparent. Raises ValueError where it does not
    fit into the image, and :class:`~maskscore.formats.MasksDocumentError` where it cannot be decoded or is too large.
    """
    from maskscore.formats.picture_decoding import decode_png
    from maskscore.masks.arrays import rle_in_box

    if size is None:
        raise ValueError("the image's height and width are not stated")
    context.check_pixels(*size)
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("its picture is not a PNG")
    pixels, _ = decode_png(png, context)
    if pixels.ndim == 3:
        pixels = pixels[..., -1] if pixels.shape[2] in (2, 4) else pixels.max(axis=2)
    height, width = pixels.shape
    if min(left, top) < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError(
            f"its picture of {width} x {height} pixels at {left}, {top} is not inside the image of {size[1]} x "
            f"{size[0]} pixels"
        )
    # Unpacked are the columns that the box takes.
    context.unpack(size[0] * width)
    return rle_in_box(pixels != 0, left, top, size)
