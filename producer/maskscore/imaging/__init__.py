"""Images as pixels: decoding to RGB within limits, treatments, frames and the model's transform. Needs Pillow."""

from __future__ import annotations

from maskscore.imaging.clip_transform import RESAMPLING, SUPPORT, ClipTransform, Placement, transform_of
from maskscore.imaging.decode_limits import TooCostlyError, check_layout, sanitized
from maskscore.imaging.frames import frame_fill, frame_placement, framed, window
from maskscore.imaging.mask_pictures import component_bits
from maskscore.imaging.rgb import SWAPS_SIDES, TURNS, has_other_colours, open_picture, orientation_of, size_of, to_rgb
from maskscore.imaging.treatments import FILL, GAIN, MEAN, blurred, treat_picture, treatment_tables

__all__ = [
    "FILL",
    "GAIN",
    "MEAN",
    "RESAMPLING",
    "SUPPORT",
    "SWAPS_SIDES",
    "TURNS",
    "ClipTransform",
    "Placement",
    "TooCostlyError",
    "blurred",
    "check_layout",
    "component_bits",
    "frame_fill",
    "frame_placement",
    "framed",
    "has_other_colours",
    "open_picture",
    "orientation_of",
    "sanitized",
    "size_of",
    "to_rgb",
    "transform_of",
    "treat_picture",
    "treatment_tables",
    "window",
]
