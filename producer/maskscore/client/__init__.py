"""The client that submits jobs and reads their results, synchronous and asynchronous, with batches and waiting."""

from __future__ import annotations

from maskscore.client.async_batch import AsyncBatch
from maskscore.client.async_client import AsyncClient
from maskscore.client.async_job_client import AsyncJobHandle
from maskscore.client.batch import COMMIT_EVERY_S, Batch, Ending, no_such_batch
from maskscore.client.categories import (
    copy_categories_of_parts,
    load_categories,
    merge_categories,
    save_categories,
    save_categories_of_parts,
)
from maskscore.client.content_id import with_content_id
from maskscore.client.image_header import image_size
from maskscore.client.job_client import JobHandle, no_such_job
from maskscore.client.mask_documents import read_masks_document, scored_masks
from maskscore.client.overview import Overview, read_overview
from maskscore.client.polling import PAGE
from maskscore.client.results_of_jobs import scored_results, views_text_of
from maskscore.client.shards_of_jobs import CommittedShards, are_shards, committed_shards
from maskscore.client.sync_client import Client

__all__ = [
    "COMMIT_EVERY_S",
    "PAGE",
    "AsyncBatch",
    "AsyncClient",
    "AsyncJobHandle",
    "Batch",
    "Client",
    "CommittedShards",
    "Ending",
    "JobHandle",
    "Overview",
    "are_shards",
    "committed_shards",
    "copy_categories_of_parts",
    "image_size",
    "load_categories",
    "merge_categories",
    "no_such_batch",
    "no_such_job",
    "read_masks_document",
    "read_overview",
    "save_categories",
    "save_categories_of_parts",
    "scored_masks",
    "scored_results",
    "views_text_of",
    "with_content_id",
]
