"""The client that submits jobs and reads their results, synchronous and asynchronous, with batches and waiting."""

from __future__ import annotations

from maskscore.client.async_batch import (
    AsyncBatch,
)
from maskscore.client.async_client import AsyncClient
from maskscore.client.async_job_client import AsyncJobHandle
from maskscore.client.batch import (
    COMMIT_EVERY_S,
    Batch,
    Ending,
)
from maskscore.client.categories import (
    joined_categories,
    keep_categories,
    kept_categories,
)
from maskscore.client.content_id import (
    with_content_id,
)
from maskscore.client.image_header import (
    image_size,
)
from maskscore.client.job_client import JobHandle
from maskscore.client.job_masks import (
    masks_document,
    masks_of,
)
from maskscore.client.overview import (
    Observer,
    Overview,
)
from maskscore.client.polling import (
    PAGE,
)
from maskscore.client.sync_client import Client

__all__ = [
    "COMMIT_EVERY_S",
    "PAGE",
    "AsyncBatch",
    "AsyncClient",
    "AsyncJobHandle",
    "Batch",
    "Client",
    "Ending",
    "JobHandle",
    "Observer",
    "Overview",
    "image_size",
    "joined_categories",
    "keep_categories",
    "kept_categories",
    "masks_document",
    "masks_of",
    "with_content_id",
]
