"""Regions of an image → crops as the model takes them, on the CPU, on the device, or by the specification's code."""

from __future__ import annotations

from maskscore_worker.crops.cpu_cropper import CpuCropper, make_crop
from maskscore_worker.crops.cropper import Cropper, ImageCrops
from maskscore_worker.crops.device_cropper import DeviceCropper
from maskscore_worker.crops.reference_cropper import ReferenceCropper

__all__ = ["CpuCropper", "Cropper", "DeviceCropper", "ImageCrops", "ReferenceCropper", "make_crop"]
