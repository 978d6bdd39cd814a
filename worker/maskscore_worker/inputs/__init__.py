"""A job's inputs: its objects from the store, its masks, its decoded image."""

from __future__ import annotations

from maskscore_worker.inputs.cancellation import run_with_cancellation
from maskscore_worker.inputs.fetching import Fetched, fetch
from maskscore_worker.inputs.images import DecodedImage, decode_image
from maskscore_worker.inputs.job_masks import check_count, read_job_masks

__all__ = ["DecodedImage", "Fetched", "check_count", "decode_image", "fetch", "read_job_masks", "run_with_cancellation"]
