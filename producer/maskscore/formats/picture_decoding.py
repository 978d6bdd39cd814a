"""PNG, TIFF, BMP, GIF and JPEG → the pixels of a label map or of one binary mask.

A JPEG changes every value a little, so it holds no numbers: it is a binary mask where nearly all of it is black or
white, cut at half, and refused otherwise.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskscore.formats.image_masks import MasksDocumentError
from maskscore.formats.read_context import ReadContext
from maskscore.imaging import TooCostlyError, check_layout, sanitized

__all__ = ["decode_picture", "decode_png"]

_Pixels = npt.NDArray[Any]
_OPENERS = {"JPEG": ["JPEG", "MPO"]}
_MIDDLE = 127
# Compression leaves black and white as they are but for an edge of grey a few pixels wide.
_DARK, _BRIGHT = 64, 191
_SHARE_OF_EXTREMES = 0.95


def decode_png(data: bytes, context: ReadContext) -> tuple[_Pixels, str]:
    """Return the pixels and Pillow's mode: ``(H, W)``, of a palette the indices, or ``(H, W, channels)``.

    The size is checked in the header, before anything is unpacked. Raises
    :class:`~maskscore.formats.MasksDocumentError`.
    """
    # IHDR is the first chunk: https://www.w3.org/TR/png-3/#11IHDR. Pillow's own limit is one for the whole process.
    width, height = (int.from_bytes(data[place : place + 4], "big") for place in (16, 20))
    context.check_pixels(height, width)
    try:
        with Image.open(io.BytesIO(sanitized(data)), formats=["PNG"]) as image:
            mode = image.mode
            pixels = np.array(image)
    except Exception as error:  # Pillow raises nearly anything for bytes that are damaged on purpose
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MasksDocumentError(f"The masks are a PNG that cannot be decoded: {reason}.") from error
    if pixels.ndim not in (2, 3):
        raise MasksDocumentError(f"The masks are a PNG of the mode {mode}, which holds no masks.")
    return pixels, mode


def decode_picture(data: bytes, kind: str, context: ReadContext) -> tuple[_Pixels, str]:
    """Return the pixels and Pillow's mode: ``(H, W)``, of a palette the indices, or ``(H, W, channels)``.

    ``kind`` is Pillow's name of the format: ``TIFF``, ``BMP``, ``GIF`` or ``JPEG``. Of floats that are whole numbers
    the integers are returned; a palette of black and white alone is grey, and a black that is not the palette's first
    colour is 0 all the same; a JPEG is of the mode ``1``, with 0 and 255. The size is checked in the header, before
    anything is unpacked.

    Raises :class:`~maskscore.formats.MasksDocumentError` for what cannot be decoded, has several pages, or is a JPEG of
    anything but one binary mask.
    """
    try:
        with Image.open(io.BytesIO(sanitized(data)), formats=_OPENERS.get(kind, [kind])) as image:
            context.check_pixels(image.height, image.width)
            check_layout(image, len(data))
            if kind in ("TIFF", "GIF") and _has_more(image):
                raise MasksDocumentError(
                    f"The masks are a {kind} of several pages. Save each as a file of its own, in a folder that is "
                    "called as the image, or all as an NPZ of (N, H, W)."
                )
            if kind == "JPEG":
                return _binary(np.asarray(image.convert("L"))), "1"
            mode, palette = image.mode, image.getpalette()
            pixels = np.array(image)
    except MasksDocumentError:
        raise
    except TooCostlyError as error:
        raise MasksDocumentError(f"The masks are a {kind} that {error}") from error
    except Exception as error:  # Pillow raises nearly anything for bytes that are damaged on purpose
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MasksDocumentError(f"The masks are a {kind} that cannot be decoded: {reason}.") from error
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise MasksDocumentError(f"The masks are a {kind} of the mode {mode}, which holds no masks.")
    if mode == "P" and palette is not None:
        return _of_palette(pixels, np.array(palette, np.uint8).reshape(-1, 3))
    return _whole(pixels, kind), mode


def _has_more(image: Image.Image) -> bool:
    # Not n_frames, which reads all of them: a small file may hold millions.
    try:
        image.seek(1)
    except EOFError:
        return False
    image.seek(0)
    return True


def _binary(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return 0 and 255 of a JPEG's grey values."""
    extremes = np.count_nonzero(grey <= _DARK) + np.count_nonzero(grey > _BRIGHT)
    if grey.any() and (extremes < _SHARE_OF_EXTREMES * grey.size or grey.max() <= _MIDDLE):
        raise MasksDocumentError(
            "The masks are a JPEG, and not of black and white: JPEG changes the numbers of a label map. Save the masks "
            "as PNG. (One mask is read from a JPEG, where inside is white and outside black.)"
        )
    return np.where(grey > _MIDDLE, np.uint8(255), np.uint8(0))


def _of_palette(pixels: _Pixels, palette: npt.NDArray[np.uint8]) -> tuple[_Pixels, str]:
    used = np.unique(pixels)
    colours = palette[used[used < len(palette)]].astype(np.int16)
    # Writers of GIF and BMP number the colours as they like.
    if len(colours) == used.size and np.isin(colours, (0, 255)).all() and np.ptp(colours, axis=1).max() == 0:
        return palette[pixels][..., 0], "L"
    black = used[: len(colours)][(colours == 0).all(axis=1)]
    if black.size and black[0] != 0:
        labels = pixels.astype(np.uint16)
        labels[pixels == 0] = 1 << 8
        labels[pixels == black[0]] = 0
        return labels, "P"
    return pixels, "P"


def _whole(pixels: _Pixels, kind: str) -> _Pixels:
    if pixels.dtype.kind in "iub":
        return pixels
    whole = np.nan_to_num(pixels, nan=0.5, posinf=0.5, neginf=0.5)
    if np.any(whole != np.round(whole)) or np.abs(whole).max() > 1 << 31:
        raise MasksDocumentError(
            f"The masks are a {kind} of numbers that are not whole: neither labels nor a mask. Save integers, or 0 and "
            "255."
        )
    return np.asarray(whole.astype(np.int64))
