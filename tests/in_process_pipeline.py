"""The worker's pipeline in this process: a job's result without a worker process, Redis or a queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from maskscore import Job, JobResult
from maskscore.ledger import Claim
from maskscore.settings import WorkerSettings
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.pipeline import load_pipeline
from maskscore_worker.telemetry import StageTimer

__all__ = ["Score", "in_process_pipeline"]

Score = Callable[[Job], JobResult]


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
