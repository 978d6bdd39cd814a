"""The pipeline: one job, step by step, to its result document; and how a worker loads what the steps need."""

from __future__ import annotations

from maskscore_worker.pipeline.loading import load_pipeline
from maskscore_worker.pipeline.pipeline import Pipeline

__all__ = ["Pipeline", "load_pipeline"]
