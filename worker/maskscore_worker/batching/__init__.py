"""Batches that are filled across jobs, and encoded within the device's memory."""

from __future__ import annotations

from maskscore_worker.batching.batcher import Batcher, BatcherStats, BatchSource

__all__ = ["BatchSource", "Batcher", "BatcherStats"]
