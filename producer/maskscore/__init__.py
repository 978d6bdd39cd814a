"""maskscore: score segmentation masks with CLIP, asynchronously.

A producer imports what is listed here; nothing of it needs a model.
"""

from maskscore.client import AsyncBatch, AsyncClient, AsyncJobHandle, Batch, Client, JobHandle
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
from maskscore.ledger import BatchCounts, DeadLetter, JobStatus
from maskscore.schema import (
    RLE,
    Component,
    ImageRef,
    Job,
    JobResult,
    JobState,
    Mask,
    MasksRef,
    PromptSet,
    ScoringOptions,
    Thresholds,
    View,
)
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
