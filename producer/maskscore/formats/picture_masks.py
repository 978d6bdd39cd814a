"""Pictures that hold masks: label maps, one binary mask, and colours that are numbers (COCO panoptic).

COCO panoptic: https://cocodataset.org/#format-data, section 4: ``id = R + 256 G + 256² B``.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskscore.formats.format import pillow_format
from maskscore.formats.image_masks import MasksDocumentError, UnreadableMask
from maskscore.formats.label_maps import entries_of_labels
from maskscore.formats.picture_decoding import decode_picture, decode_png
from maskscore.formats.read_context import ReadContext
from maskscore.imaging import sanitized
from maskscore.masks.arrays import rle_of_mask

__all__ = ["Picture", "entries_of_picture", "panoptic_ids", "picture_of"]

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


@dataclass(frozen=True)
class Picture:
    """A picture that holds masks: ``(H, W)`` or ``(H, W, channels)``, of a palette the indices; Pillow's mode."""

    pixels: _Pixels
    mode: str
    data: bytes = field(repr=False)

    @cached_property
    def format_name(self) -> str:
        """``png-labels``, ``png-binary`` or ``coco-panoptic``, as the pixels show.

        Raises :class:`~maskscore.formats.MasksDocumentError` for what looks like a photograph.
        """
        return _format_name(self.pixels, self.mode)


def picture_of(data: bytes, context: ReadContext) -> Picture:
    """Return a picture of any known kind, decoded. Raises :class:`~maskscore.formats.MasksDocumentError`."""
    kind = pillow_format(data)
    if kind is None or kind == "PNG":
        return Picture(*decode_png(data, context), data)
    return Picture(*decode_picture(data, kind, context), data)


def entries_of_picture(picture: Picture, format_name: str, context: ReadContext) -> list[Any]:
    """Return the entries of a picture of this format: ``png-labels``, ``png-binary`` or ``coco-panoptic``.

    Where the format was guessed, a background that is a mask is a doubt. Raises
    :class:`~maskscore.formats.MasksDocumentError`.
    """
    pixels = picture.pixels
    if format_name != "png-binary" and pillow_format(picture.data) == "JPEG":
        raise MasksDocumentError(
            "The masks are a JPEG, which changes the numbers of a label map: save them as PNG. (One mask in black and "
            "white is read: png-binary.)"
        )
    if format_name == "coco-panoptic":
        ids = panoptic_ids(pixels)
        if context.format_is_guessed:
            _doubt_background(ids, "the colour", context)
        return entries_of_labels(ids, context)
    if pixels.ndim == 3:
        pixels = _one_channel(pixels, format_name)
    if format_name == "png-labels":
        if context.format_is_guessed:
            _doubt_background(pixels, "the value", context)
        return _labels(pixels, picture, context)
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


def _labels(pixels: _Pixels, picture: Picture, context: ReadContext) -> list[Any]:
    """Return the entries of a label map, but for the value that stands for "ignore"."""
    if pixels.dtype != np.uint8 or not _has_ignored(pixels, picture.mode):
        return entries_of_labels(pixels, context)
    entries = entries_of_labels(np.where(pixels == _IGNORED, np.uint8(0), pixels), context)
    if picture.mode == "P" and _is_border_of_voc(picture.data):
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
    with Image.open(io.BytesIO(sanitized(data)), formats=["PNG"]) as image:
        return tuple((image.getpalette() or [])[3 * _IGNORED :]) == _BORDER_OF_VOC


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


def _format_name(pixels: _Pixels, mode: str) -> str:
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


def _one_channel(pixels: _Pixels, format_name: str) -> _Pixels:
    """Return the channel that has the masks: of a grey picture any, and alpha where that alone says something."""
    channels = pixels.shape[2]
    if channels >= 3 and not _is_grey(pixels):
        if format_name == "png-binary":
            return np.asarray(pixels[..., :3].max(axis=2))
        raise MasksDocumentError(
            "The masks are a picture in colours, not a label map of one channel. Where colours are numbers "
            "(R + 256 G + 65536 B), say the format coco-panoptic."
        )
    if channels in (2, 4) and pixels[..., 0].min() == pixels[..., 0].max():
        return pixels[..., -1]
    return pixels[..., 0]
