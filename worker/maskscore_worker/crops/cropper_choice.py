"""Which cropper a worker has."""

from __future__ import annotations

from maskscore.settings import CropDevice, CropMode
from maskscore_worker.crops.cpu_cropper import CpuCropper
from maskscore_worker.crops.cropper import Cropper
from maskscore_worker.crops.device_cropper import DeviceCropper
from maskscore_worker.crops.reference_cropper import ReferenceCropper
from maskscore_worker.model import ClipModel

__all__ = ["choose_cropper"]


def choose_cropper(setting: CropDevice, model: ClipModel, *, crop_mode: CropMode) -> Cropper:
    """Return what makes the crops of a model: ``auto`` is the model's device where that is a GPU, else the CPU.

    In the mode ``reference`` crops are always made on the CPU.
    """
    if crop_mode == "reference":
        return ReferenceCropper(model.transform)
    if setting == "device" or (setting == "auto" and model.device.type == "cuda"):
        return DeviceCropper(model.image_size, model.device)
    # Two grey levels move a probability by half a percent at most: less than bf16 does, more than fp32 may.
    return CpuCropper(model.image_size, exact=model.precision == "fp32")
