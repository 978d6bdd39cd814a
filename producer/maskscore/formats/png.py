"""Pictures: label maps, one binary mask, and colours that are numbers (COCO panoptic). PNG is decoded here.

COCO panoptic: https://cocodataset.org/#format-data, section 4: ``id = R + 256 G + 256² B``.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskscore.formats.label_maps import entries_of_labels
from maskscore.formats.magic import pillow_format
from maskscore.formats.outcomes import MasksDocumentError, UnreadableMask
from maskscore.formats.read_context import ReadContext
from maskscore.imaging import checked
from maskscore.masks.arrays import rle_of_mask

__all__ = ["decode_png", "entries_of_png", "layout_of_png", "panoptic_ids"]

_Pixels = npt.NDArray[Any]
_MIDDLE = 127
# Pascal VOC, Cityscapes (train ids) and ADE20K mark what is of no class so. VOC's own colour of it is its palette's.
_IGNORED = 255
_BORDER_OF_VOC = (224, 224, 192)
_HIGHEST_LABEL, _LOWEST_LABEL = 200, 31
# A binary mask that was drawn or scaled smoothly has an edge of grey; a label map has no reason to be nearly all 255.
_SHARE_OF_WHITE = 0.75
# What is around the picture nearly everywhere may be its background.
_SHARE_OF_BORDER = 0.9
# Labels come in areas: from one pixel to the next they rarely change. In a photograph they nearly always do.
_SHARE_OF_CHANGES = 0.5
# A photograph in a palette has few colours, and more neighbours of one colour.
_SHARE_IN_PALETTE = 0.25


def layout_of_png(data: bytes) -> str:
    """Return ``png-labels``, ``png-binary`` or ``coco-panoptic``, by the pixels of a picture of any known kind.

    Raises :class:`~maskscore.formats.MasksDocumentError`.
    """
    return _layout(*_decoded(data, ReadContext()))


def entries_of_png(data: bytes, layout: str | None, context: ReadContext) -> list[Any]:
    """Return the entries of a picture of the named layout, or of the one that its pixels show.

    Raises :class:`~maskscore.formats.MasksDocumentError`.
    """
    pixels, mode = _decoded(data, context)
    guessed, layout = layout is None, layout or _layout(pixels, mode)
    if layout != "png-binary" and pillow_format(data) == "JPEG":
        raise MasksDocumentError(
            "The masks are a JPEG, which changes the numbers of a label map: save them as PNG. (One mask in black and "
            "white is read: png-binary.)"
        )
    if layout == "coco-panoptic":
        ids = panoptic_ids(pixels)
        if guessed:
            _doubt_background(ids, "the colour", context)
        return entries_of_labels(ids, context)
    if pixels.ndim == 3:
        pixels = _one_channel(pixels, layout)
    if layout == "png-labels":
        if guessed:
            _doubt_background(pixels, "the value", context)
        return _labels(pixels, mode, data, context)
    inside = pixels > _MIDDLE if pixels.max() > _MIDDLE else pixels > 0
    return [{"segmentation": rle_of_mask(inside)}] if inside.any() else []


def _doubt_background(labels: _Pixels, what: str, context: ReadContext) -> None:
    """Say so where one value other than 0 is all around the picture, and none is 0: it may be the background."""
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    values, counts = np.unique(border, return_counts=True)
    value = int(values[counts.argmax()])
    if value and counts.max() >= _SHARE_OF_BORDER * border.size and not np.any(labels == 0):
        shown = f"{value & 255}, {value >> 8 & 255}, {value >> 16}" if what == "the colour" else str(value)
        context.doubts.append(
            f"{what.capitalize()} {shown} is all around the picture, and is taken for the mask {value}, since only 0 "
            "(black) is background. If it is the background, write it as 0, or leave this mask out. (If it is a mask, "
            "say the format, and this is not said.)"
        )


def _decoded(data: bytes, context: ReadContext) -> tuple[_Pixels, str]:
    kind = pillow_format(data)
    if kind is None or kind == "PNG":
        return decode_png(data, context)
    from maskscore.formats.pictures import decode_picture

    return decode_picture(data, kind, context)


def _labels(pixels: _Pixels, mode: str, data: bytes, context: ReadContext) -> list[Any]:
    """Return the entries of a label map, but for the value that stands for "ignore"."""
    if pixels.dtype != np.uint8 or not _has_ignored(pixels, mode):
        return entries_of_labels(pixels, context)
    entries = entries_of_labels(np.where(pixels == _IGNORED, np.uint8(0), pixels), context)
    if mode == "P" and _is_border_of_voc(data):
        return entries
    message = (
        f'The value {_IGNORED} was left out: beside small labels, in 8 bits, it means "ignore". If it is a mask, save '
        "the map in 16 bits."
    )
    return [*entries, UnreadableMask(str(_IGNORED), message)]


def _has_ignored(pixels: _Pixels, mode: str) -> bool:
    counts = np.bincount(pixels.ravel(), minlength=_IGNORED + 1)
    labels = np.flatnonzero(counts[1:_IGNORED]) + 1
    if not counts[_IGNORED] or not labels.size or labels[-1] > _HIGHEST_LABEL:
        return False
    # Labels that were spread over the greys, so that they can be seen, have no small ones.
    return mode == "P" or int(labels[0]) <= _LOWEST_LABEL


def _is_border_of_voc(data: bytes) -> bool:
    """Say whether the palette's colour 255 is that of Pascal VOC's borders."""
    with Image.open(io.BytesIO(checked(data)), formats=["PNG"]) as image:
        return tuple((image.getpalette() or [])[3 * _IGNORED :]) == _BORDER_OF_VOC


def decode_png(data: bytes, context: ReadContext) -> tuple[_Pixels, str]:
    """Return the pixels and Pillow's mode: ``(H, W)``, of a palette the indices, or ``(H, W, channels)``.

    The size is checked in the header, before anything is unpacked. Raises
    :class:`~maskscore.formats.MasksDocumentError`.
    """
    # IHDR is the first chunk: https://www.w3.org/TR/png-3/#11IHDR. Pillow's own limit is one for the whole process.
    width, height = (int.from_bytes(data[place : place + 4], "big") for place in (16, 20))
    context.check_pixels(height, width)
    try:
        with Image.open(io.BytesIO(checked(data)), formats=["PNG"]) as image:
            mode = image.mode
            pixels = np.array(image)
    except Exception as error:  # Pillow raises nearly anything for bytes that are damaged on purpose
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise MasksDocumentError(f"The masks are a PNG that cannot be decoded: {reason}.") from error
    if pixels.ndim not in (2, 3):
        raise MasksDocumentError(f"The masks are a PNG of the mode {mode}, which holds no masks.")
    return pixels, mode


def panoptic_ids(pixels: _Pixels) -> npt.NDArray[np.uint32]:
    """Return the ``(H, W)`` ids that the colours of an ``(H, W, 3)`` (or 4) array say.

    A grey PNG, ``(H, W)``, has the ids themselves.
    """
    if pixels.ndim == 2:
        return pixels.astype(np.uint32)
    if pixels.shape[2] < 3:
        return pixels[..., 0].astype(np.uint32)
    red, green, blue = (pixels[..., channel].astype(np.uint32) for channel in range(3))
    return np.asarray(red | (green << 8) | (blue << 16), np.uint32)


def _layout(pixels: _Pixels, mode: str) -> str:
    if pixels.ndim == 3:
        if pixels.shape[2] < 3 or _is_grey(pixels):
            pixels, mode = _one_channel(pixels, "png-binary"), "L"
        else:
            _refuse_photograph(panoptic_ids(pixels))
            return "coco-panoptic"
    if mode == "1":
        return "png-binary"
    if mode == "L":
        marked = int(np.count_nonzero(pixels))
        if marked and np.count_nonzero(pixels == np.iinfo(np.uint8).max) >= _SHARE_OF_WHITE * marked:
            return "png-binary"
    _refuse_photograph(pixels, _SHARE_IN_PALETTE if mode == "P" else _SHARE_OF_CHANGES)
    return "png-labels"


def _refuse_photograph(labels: _Pixels, share: float = _SHARE_OF_CHANGES) -> None:
    changes = np.count_nonzero(labels[:, 1:] != labels[:, :-1])
    if changes > share * labels.size:
        raise MasksDocumentError(
            "The masks are a picture that changes from pixel to pixel, as a photograph does; a label map has areas of "
            "one value. If it is one all the same, say its format outright."
        )


def _is_grey(pixels: _Pixels) -> bool:
    return bool(np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2]))


def _one_channel(pixels: _Pixels, layout: str) -> _Pixels:
    """Return the channel that has the masks: of a grey picture any, and alpha where that alone says something."""
    channels = pixels.shape[2]
    if channels >= 3 and not _is_grey(pixels):
        if layout == "png-binary":
            return np.asarray(pixels[..., :3].max(axis=2))
        raise MasksDocumentError(
            "The masks are a picture in colours, not a label map of one channel. Where colours are numbers "
            "(R + 256 G + 65536 B), say the format coco-panoptic."
        )
    if channels in (2, 4) and pixels[..., 0].min() == pixels[..., 0].max():
        return pixels[..., -1]
    return pixels[..., 0]
