"""One region of an image → the square crop that the model sees, as uint8."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskscore.imaging import framed, window
from maskscore.schema import Box, View
from maskscore_worker.crops.resize import resize_square
from maskscore_worker.crops.treatments import treat

__all__ = ["make_crop", "widened"]

Bits = npt.NDArray[np.bool_]


def make_crop(
    pixels: npt.NDArray[np.uint8],
    box: Box,
    bits: Bits,
    view: View,
    *,
    size: int,
    exact: bool = True,
) -> npt.NDArray[np.uint8]:
    """Crop, treat, make square.

    ``pixels`` is ``(H, W, 3)`` uint8 RGB, ``box`` is XYWH, ``bits`` ``(h, w)`` bool. Returns ``(size, size, 3)`` uint8;
    with the frame ``cut`` it is what open_clip's inference transform gives before it normalises (torchvision's
    ``Resize`` of the short side by Pillow's antialiased bicubic, then ``CenterCrop``). To the bit where it is to be
    ``exact``, but for thin, long masks (see :func:`maskscore.imaging.is_sliver`); else within two grey levels and in
    half the time. The other frames, which are Pillow's in any case, are in :mod:`maskscore.imaging.frames`.
    """
    x, y, width, height = seen = window(box, view, (pixels.shape[1], pixels.shape[0]))
    inside = widened(bits, box, seen)
    treated = treat(pixels[y : y + height, x : x + width], inside, view, longer_side=max(box[2:]))
    if view.frame == "cut" and not exact:
        return resize_square(treated, size)
    return np.asarray(framed(Image.fromarray(np.ascontiguousarray(treated)), view, size))


def widened(bits: Bits, box: Box, window: Box) -> Bits:
    """Return a mask's ``(h, w)`` bits within a window around its box; both are XYWH."""
    if window == box:
        return bits
    wide = np.zeros((window[3], window[2]), bool)
    left, top = box[0] - window[0], box[1] - window[1]
    wide[top : top + box[3], left : left + box[2]] = bits
    return wide
