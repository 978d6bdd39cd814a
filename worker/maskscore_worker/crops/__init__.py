"""Masks of an image → crops as the model takes them, on the CPU and on the device."""

from __future__ import annotations

from maskscore_worker.crops.base import (
    make_crop,
)
from maskscore_worker.crops.cropper_choice import (
    choose_cropper,
)
from maskscore_worker.crops.croppers import (
    Cropper,
    ImageCrops,
)

__all__ = [
    "Cropper",
    "ImageCrops",
    "choose_cropper",
    "make_crop",
]
