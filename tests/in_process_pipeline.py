"""The worker's pipeline in this process: a job's result without a worker process, Redis or a queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from maskscore import Job, JobResult
from maskscore.ledger import Claim
from maskscore.settings import WorkerSettings
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.pipeline import load_pipeline
from maskscore_worker.telemetry import StageTimer

__all__ = ["PIPELINE_MODES", "TOLERANCE", "Score", "in_process_pipeline"]

Score = Callable[[Job], JobResult]

PIPELINE_MODES: Final[Mapping[str, Mapping[str, str]]] = {
    "fast": {"crop_device": "cpu"},
    "reference": {"crop_mode": "reference"},
    "bf16": {"crop_device": "cpu", "precision": "bf16"},
    "device": {"crop_device": "device"},
}
"""The settings of a pipeline by crop mode, in bf16, and with crops made on the device."""

TOLERANCE: Final[Mapping[str, float]] = {"fast": 1e-3, "reference": 1e-5, "bf16": 3e-2, "device": 1e-3}
"""By how much a probability of each mode may differ from the specification's plain code."""


@contextmanager
def in_process_pipeline(**settings: Any) -> Iterator[Score]:
    """Load a pipeline, and yield what scores one job with it, stores nothing and raises what the job fails with.

    ``settings`` are those of a worker, over the demo model and its prompts on the CPU.
    """
    given = {"weights": DEMO_WEIGHTS, "prompts": "demo", "device": "cpu", **settings}
    with load_pipeline(WorkerSettings(**given), worker="in-process") as pipeline:

        def score(job: Job) -> JobResult:
            now = datetime.now(UTC)
            claim = Claim(job.job_id, "token", 1, 0, b"", now, now)
            return pipeline.score(job, claim, lambda: None, StageTimer())

        yield score
