"""The known crops by which a worker's fast path is compared with the plain one: drawn, so that none must be read."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from maskscore.schema import View
from maskscore_worker.crops import Cropper
from maskscore_worker.masks import Region

__all__ = ["PROBES", "PROBE_VIEWS", "drawn_photo", "ellipse", "make_probe_crops"]

_HEIGHT, _WIDTH = 320, 400
# A large mask, a tall one that is cut at its ends, and a small one: XYWH.
_BOXES: Final = ((60, 30, 230, 250), (310, 10, 40, 300), (20, 20, 37, 29))
PROBE_VIEWS: Final = (
    View(treatment="original"),
    View(treatment="soft_mask"),
    View(treatment="raw_crop", frame="context"),
)
PROBES: Final = len(_BOXES)
"""How many crops there are."""


def make_probe_crops(cropper: Cropper) -> Any:
    """Return the crops ``(PROBES, …)`` as the cropper makes them: an array, or a tensor on its device."""
    image = cropper.open(drawn_photo())
    made = [
        image.make([ellipse(number, box, _HEIGHT)], view, lambda: None)
        for number, (box, view) in enumerate(zip(_BOXES, PROBE_VIEWS, strict=True))
    ]
    return np.concatenate(made) if isinstance(made[0], np.ndarray) else torch.cat(made)


def drawn_photo() -> npt.NDArray[np.uint8]:
    """Return ``(H, W, 3)`` uint8 RGB with a photo's statistics.

    The amplitudes of natural images fall with the frequency (Field, "Relations between the statistics of natural images
    and the response properties of cortical cells", JOSA A 4, 1987), and their colours go together.
    """
    rng = np.random.default_rng(15)
    frequencies = np.hypot(np.fft.fftfreq(_HEIGHT)[:, None], np.fft.rfftfreq(_WIDTH)[None])
    falling = 1 / np.maximum(frequencies, 1 / _WIDTH)
    planes = [
        np.fft.irfft2(np.fft.rfft2(rng.standard_normal((_HEIGHT, _WIDTH))) * falling, (_HEIGHT, _WIDTH))
        for _ in range(4)
    ]
    brightness, *colours = (plane / plane.std() for plane in planes)
    values = np.stack([128 + 55 * brightness + 25 * colour for colour in colours], axis=-1)
    photo: npt.NDArray[np.uint8] = np.clip(values, 0, 255).astype(np.uint8)
    return photo


def ellipse(number: int, box: tuple[int, int, int, int], image_height: int) -> Region:
    """Return the mask that fills its box (XYWH) as an ellipse."""
    _, _, width, height = box
    down, across = np.ogrid[:height, :width]
    bits = ((down + 0.5) / height * 2 - 1) ** 2 + ((across + 0.5) / width * 2 - 1) ** 2 <= 1
    return Region(number, "", None, box, int(bits.sum()), image_height, bits)
