"""A job's inputs: its objects from the store, its masks, its decoded image; and photos to try weights on."""

from __future__ import annotations

from maskscore_worker.inputs.cancellation import run_with_cancellation
from maskscore_worker.inputs.fetching import Fetched, fetch
from maskscore_worker.inputs.images import DecodedImage, ImageFile, decode_image
from maskscore_worker.inputs.job_masks import check_count, read_job_masks
from maskscore_worker.inputs.sample_photos import PHOTOS, cut_into_masks, photo, photos_in

__all__ = [
    "PHOTOS",
    "DecodedImage",
    "Fetched",
    "ImageFile",
    "check_count",
    "cut_into_masks",
    "decode_image",
    "fetch",
    "photo",
    "photos_in",
    "read_job_masks",
    "run_with_cancellation",
]
