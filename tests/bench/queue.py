"""Jobs per second for ``submit_many`` from one producer, results per second for ``as_completed``; what Redis sees."""

from __future__ import annotations

import statistics
import time
import uuid
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.material import jpeg, masks, photograph
from bench.stack import running_services, running_worker, upload
from maskscore import Client, ClientSettings, Job, Mask, ScoringOptions
from maskscore.broker.celery_queue import make_app
from maskscore.masks import encode_mask
from maskscore_worker.demo.run import DEMO_WEIGHTS

__all__ = ["run"]

SHAPE = (120, 160)
OPTIONS = ScoringOptions(prompts="demo")


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure with a queue that nobody serves, then with the demo model behind it."""
    count, rounds = (4000, 5) if full else (1000, 3)
    with running_services() as services:
        image = upload(jpeg(photograph(*SHAPE)), "tiny.jpg")
        mask = Mask(id="1", segmentation=encode_mask(masks(1, height=SHAPE[0], width=SHAPE[1])[0]))
        jobs = [Job(image=image, masks=[mask], options=OPTIONS) for _ in range(count)]
        server = redis.Redis.from_url(services.redis.url)
        ours, celery = [], []
        traffic: dict[str, float] = {}
        for _ in range(rounds):
            settings = ClientSettings(redis_url=services.redis.url, namespace=f"queue-{uuid.uuid4().hex[:8]}")
            with Client(settings) as client:
                before = _traffic(server)
                started = time.perf_counter()
                client.submit_many(jobs)
                ours.append(count / (time.perf_counter() - started))
                traffic = {name: (value - before[name]) / count for name, value in _traffic(server).items()}
            celery.append(count / _plain_celery(settings, count))
        with running_worker(services, DEMO_WEIGHTS, prompts="demo") as (client, _):
            batch = client.submit_many(jobs)
            started = time.perf_counter()
            ended = sum(1 for _ in client.as_completed(batch, timeout=900))
            served = count / (time.perf_counter() - started)
            started = time.perf_counter()
            again = sum(1 for _ in client.as_completed(batch, timeout=900))
            read = count / (time.perf_counter() - started)
        if ended != count or again != count:
            raise AssertionError(f"{count} jobs were submitted, {ended} and {again} results came")
    table = Table(title=f"{count} jobs of one mask, one producer, medians of {rounds} rounds")
    table.add_column("what")
    table.add_column("per second", justify="right")
    table.add_row("submit_many", f"{statistics.median(ours):,.0f}")
    table.add_row("Celery's own apply_async, without a ledger", f"{statistics.median(celery):,.0f}")
    table.add_row("jobs through one worker with the demo model", f"{served:,.0f}")
    table.add_row("as_completed, all results there already", f"{read:,.0f}")
    console.print(table)
    said = ", ".join(f"{value:.3g} {name}" for name, value in traffic.items())
    console.print(f"Redis per submitted job: {said}")
    figures["queue.submit_per_s"] = statistics.median(ours)
    figures["queue.celery_per_s"] = statistics.median(celery)
    figures["queue.demo_jobs_per_s"] = served
    figures["queue.results_per_s"] = read
    for name, value in traffic.items():
        figures[f"queue.{name.replace(' ', '_')}_per_job"] = value


def _traffic(server: Any) -> dict[str, float]:
    stats = server.info("stats")
    # Each time that the server finds something to read on a connection: about one per round trip.
    return {
        "reads": stats["total_reads_processed"],
        "commands": stats["total_commands_processed"],
        "bytes in": stats["total_net_input_bytes"],
        "bytes out": stats["total_net_output_bytes"],
    }


def _plain_celery(settings: ClientSettings, count: int) -> float:
    app = make_app(settings)
    app.conf.task_default_queue = f"{settings.namespace}-plain"

    def nothing(job_id: str) -> None:
        """Never run: nobody serves this queue."""

    task = app.task(name="nothing", ignore_result=True)(nothing)
    with app.producer_pool.acquire(block=True) as producer:
        task.apply_async(args=["warm"], producer=producer)
        started = time.perf_counter()
        for number in range(count):
            task.apply_async(args=[str(number)], producer=producer)
        taken = time.perf_counter() - started
    app.close()
    return taken
