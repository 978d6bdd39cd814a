"""maskscore: score segmentation masks with CLIP, asynchronously.

A producer imports what is listed here; nothing of it needs a model. Each name is loaded when it is first used: the
command line's entry point lies in this package, and has to answer Ctrl-C before Celery and pydantic are imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        SigmoidThresholds,
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
    "SigmoidThresholds",
    "Thresholds",
    "TooManyBatches",
    "View",
    "WaitTimeout",
]

# From light to heavy: a name is looked up where the least has to be loaded.
_DISTRICTS = ("errors", "schema", "settings", "ledger", "client")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for district in (import_module(f"{__name__}.{district}") for district in _DISTRICTS):
            if hasattr(district, name):
                return getattr(district, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
