"""maskscore: score segmentation masks with CLIP, asynchronously.

A producer imports what is listed here; nothing of it needs a model.
"""

from maskscore.async_batch import AsyncBatch
from maskscore.async_client import AsyncClient, AsyncJobHandle
from maskscore.batch import Batch
from maskscore.client import Client, JobHandle
from maskscore.errors import (
    BatchNotFound,
    JobConflict,
    JobFailed,
    JobNotFound,
    MaskscoreError,
    PayloadTooLarge,
    QueueFull,
    ResultUnavailable,
    ServiceUnavailable,
    TooManyBatches,
    WaitTimeout,
)
from maskscore.job import RLE, ImageRef, Job, Mask, MasksRef, ScoringOptions, Thresholds, View
from maskscore.ledger import BatchCounts, DeadLetter, JobStatus
from maskscore.prompts import PromptSet
from maskscore.result import Component, JobResult, JobState
from maskscore.settings import ClientSettings

__all__ = [
    "RLE",
    "AsyncBatch",
    "AsyncClient",
    "AsyncJobHandle",
    "Batch",
    "BatchCounts",
    "BatchNotFound",
    "Client",
    "ClientSettings",
    "Component",
    "DeadLetter",
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
    "QueueFull",
    "ResultUnavailable",
    "ScoringOptions",
    "ServiceUnavailable",
    "Thresholds",
    "TooManyBatches",
    "View",
    "WaitTimeout",
]
