"""Hook of a worker that ends by SIGKILL at some parts, the first time, and at one image of the shard `poison`.

Shards whose names begin with `full`, `short` or `beside` wait with their parts for a file `go-on-` and this word. Their
parts and what is scored of the jobs `urgent` and `suspect` are noted in the file `turns`, in their order.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from maskscore_worker.jobs import shard_attempt
from maskscore_worker.pipeline import Pipeline
from waiting import until

DIED = Path(os.environ["WORKER_DIED"])
PARTS = (
    "killed/masks/killed-00001.parquet",
    "killed/masks/killed-00003.parquet",
    "rescored/masks/embedded-00001.parquet",
)
IMAGE = "sa_7.jpg"

patched: Any = shard_attempt
pipeline: Any = Pipeline
write_part, score_fetched, run = patched.write_part, pipeline.score_fetched, pipeline.run


def write_and_die(tables: Any, names: Any, output: str, *where: Any, **more: Any) -> None:
    """Store a part; the first time, the worker ends before it is committed."""
    for kind in ("full", "short", "beside"):
        if names.masks.startswith(f"masks/{kind}"):
            note(names.masks)
            until((DIED / f"go-on-{kind}").exists)
    write_part(tables, names, output, *where, **more)
    place = output + names.masks
    marker = DIED / place.replace("/", "-")
    if place.endswith(PARTS) and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def score_or_die(self: Pipeline, job: Any, *given: Any) -> Any:
    """Score an image; the worker ends at one of them each time."""
    if job.job_id == "poison" and job.image.uri.endswith(IMAGE):
        with (DIED / "at-image").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return score_fetched(self, job, *given)


def score(self: Pipeline, job: Any, *given: Any) -> Any:
    """Score a job."""
    result = run(self, job, *given)
    if job.job_id in ("urgent", "suspect"):
        note(job.job_id)
    return result


def note(turn: str) -> None:
    """Note a turn."""
    with (DIED / "turns").open("a") as file:
        file.write(f"{turn}\n")


patched.write_part = write_and_die
pipeline.score_fetched = score_or_die
pipeline.run = score
