"""Regions of an image → crops as the model takes them, on the CPU, on the device, or by the specification's code."""

from __future__ import annotations

from maskscore_worker.crops.cpu_cropper import make_crop
from maskscore_worker.crops.cropper import Cropper
from maskscore_worker.crops.cropper_choice import choose_cropper

__all__ = ["Cropper", "choose_cropper", "make_crop"]
