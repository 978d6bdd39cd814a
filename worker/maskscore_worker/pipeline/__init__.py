"""The pipeline: one job, step by step, to its result document; and how a worker loads what the steps need."""

from __future__ import annotations

from maskscore_worker.pipeline.fast_path import PARTS, PathDiffersError
from maskscore_worker.pipeline.loading import load_pipeline
from maskscore_worker.pipeline.pipeline import Pipeline
from maskscore_worker.pipeline.weights_check import check_weights

__all__ = ["PARTS", "PathDiffersError", "Pipeline", "check_weights", "load_pipeline"]
