"""Images as pixels: decoding to RGB within limits, treatments, frames and the model's transform. Needs Pillow."""

from __future__ import annotations

from maskscore.imaging.clip_transform import centre_offset, enlarge_middle, is_sliver, resized_size
from maskscore.imaging.decode_limits import TooCostlyError, check_layout, sanitized
from maskscore.imaging.frames import framed, window
from maskscore.imaging.mask_pictures import component_bits
from maskscore.imaging.rgb import SWAPS_SIDES, TURNS, open_picture, orientation_of, size_of, to_rgb
from maskscore.imaging.treatments import FILL, GAIN, MEAN, blurred, treat_picture, treatment_tables

__all__ = [
    "FILL",
    "GAIN",
    "MEAN",
    "SWAPS_SIDES",
    "TURNS",
    "TooCostlyError",
    "blurred",
    "centre_offset",
    "check_layout",
    "component_bits",
    "enlarge_middle",
    "framed",
    "is_sliver",
    "open_picture",
    "orientation_of",
    "resized_size",
    "sanitized",
    "size_of",
    "to_rgb",
    "treat_picture",
    "treatment_tables",
    "window",
]
