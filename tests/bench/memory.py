"""A worker's resident memory over jobs of mixed sizes, and what a queued job and a stored result take in Redis."""

from __future__ import annotations

import uuid

import numpy as np
import redis
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.material import jpeg, masks, photograph
from bench.stack import resident_mb, running_services, running_worker, upload
from maskscore import Client, ClientSettings, Job, JobState, Mask, ScoringOptions
from maskscore.masks import encode_mask
from maskscore_worker.demo.run import DEMO_WEIGHTS

__all__ = ["run"]

OPTIONS = ScoringOptions(prompts="demo")
SHAPES = ((120, 160), (480, 640), (1500, 2250))


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Run thousands of jobs through one worker with the demo model."""
    chunk, chunks = (1000, 8) if full else (200, 7)
    with running_services() as services:
        server = redis.Redis.from_url(services.redis.url)
        kinds = []
        for height, width in SHAPES:
            image = upload(jpeg(photograph(height, width)), f"{height}.jpg")
            found = [
                Mask(id=str(n), segmentation=encode_mask(bits))
                for n, bits in enumerate(masks(30, height=height, width=width))
            ]
            kinds.append((image, found))
        rng = np.random.default_rng(4)

        def jobs(count: int) -> list[Job]:
            made = []
            for kind in rng.choice(len(kinds), count, p=[0.6, 0.3, 0.1]):
                image, found = kinds[kind]
                made.append(Job(image=image, masks=found[: int(rng.integers(1, 31))], options=OPTIONS))
            return made

        idle = ClientSettings(redis_url=services.redis.url, namespace=f"idle-{uuid.uuid4().hex[:8]}")
        with Client(idle) as client:
            before = server.info("memory")["used_memory"]
            client.submit_many(jobs(chunk))
            queued = (server.info("memory")["used_memory"] - before) / chunk
        resident = []
        with running_worker(services, DEMO_WEIGHTS, prompts="demo") as (client, worker):
            before = server.info("memory")["used_memory"]
            for _ in range(chunks):
                for result in client.as_completed(client.submit_many(jobs(chunk)), timeout=1800):
                    if result.state is not JobState.SUCCEEDED:
                        raise AssertionError(f"a job of the benchmark did not succeed: {result}")
                resident.append(resident_mb(worker.pid))
            stored = (server.info("memory")["used_memory"] - before) / (chunk * chunks)
    table = Table(title=f"a worker with the demo model, {chunk * chunks:,} jobs of 1 to 30 masks, up to 2250 x 1500")
    table.add_column("after jobs", justify="right")
    table.add_column("resident MiB", justify="right")
    for number, megabytes in enumerate(resident, 1):
        table.add_row(f"{number * chunk:,}", f"{megabytes:.0f}")
    console.print(table)
    # The first jobs fill caches and the allocator's arenas; what grows after them is a leak.
    growth = resident[-1] - max(resident[: len(resident) // 2])
    console.print(f"growth in the second half: {growth:+.0f} MiB")
    console.print(
        f"Redis: {queued:,.0f} bytes per queued job, {stored:,.0f} per ended job with its document and result"
    )
    figures["memory.rss_growth_mb"] = growth
    figures["memory.rss_mb"] = resident[-1]
    figures["memory.redis_bytes_per_queued_job"] = queued
    figures["memory.redis_bytes_per_ended_job"] = stored
