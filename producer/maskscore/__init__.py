"""maskscore: score segmentation masks with CLIP, asynchronously.

A producer imports what is listed here; nothing of it needs a model.
"""

from maskscore.client import Batch, Client, JobHandle
from maskscore.errors import (
    JobConflict,
    JobFailed,
    JobNotFound,
    MaskscoreError,
    PayloadTooLarge,
    ResultUnavailable,
    ServiceUnavailable,
    WaitTimeout,
)
from maskscore.job import RLE, ImageRef, Job, Mask, MasksRef, ScoringOptions, Thresholds
from maskscore.ledger import JobStatus
from maskscore.prompts import PromptSet
from maskscore.result import Component, JobResult, JobState
from maskscore.settings import ClientSettings

__all__ = [
    "RLE",
    "Batch",
    "Client",
    "ClientSettings",
    "Component",
    "ImageRef",
    "Job",
    "JobConflict",
    "JobFailed",
    "JobHandle",
    "JobNotFound",
    "JobResult",
    "JobState",
    "JobStatus",
    "Mask",
    "MasksRef",
    "MaskscoreError",
    "PayloadTooLarge",
    "PromptSet",
    "ResultUnavailable",
    "ScoringOptions",
    "ServiceUnavailable",
    "Thresholds",
    "WaitTimeout",
]
