"""What the queue costs: submits beside Celery's own, small jobs beside release 0, and jobs behind 100,000 others."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.material import jpeg, masks, photograph
from bench.small_job_cost import compare_small_jobs
from bench.stack import running_services, running_worker, upload
from maskscore import Client, ClientSettings, Job, JobStatus, Mask, ScoringOptions
from maskscore.broker.celery_queue import make_app
from maskscore.devstack import LocalServices
from maskscore.masks import encode_mask
from maskscore_worker.demo.run import DEMO_WEIGHTS

__all__ = ["run"]

SHAPE = (120, 160)
OPTIONS = ScoringOptions(prompts="demo")
BACKLOG = 100_000


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure all of it, in some five minutes on two cores."""
    rounds = 5 if full else 3
    with running_services() as services:
        image = upload(jpeg(photograph(*SHAPE)), "photo.jpg")
        mask = Mask(id="1", segmentation=encode_mask(masks(1, height=SHAPE[0], width=SHAPE[1])[0]))

        def jobs(count: int, **fields: Any) -> list[Job]:
            return [Job(image=image, masks=[mask], options=OPTIONS, **fields) for _ in range(count)]

        with _table(console, f"submitting jobs of one mask, medians of {rounds} rounds") as table:
            _submits(table, figures, services, jobs, count=4000 if full else 2000, rounds=rounds)
        # Many short rounds: what else runs on the machine meets both releases alike.
        turns = 40 if full else 12
        with _table(console, f"jobs of one mask, an image in S3, the demo model; medians of {turns} rounds") as table:
            compare_small_jobs(table, figures, services, image, mask, count=100, rounds=turns)
        with _table(console, f"jobs of others behind {BACKLOG:,} queued ones") as table:
            _backlog(table, figures, services, jobs)


@contextmanager
def _table(console: Console, title: str) -> Iterator[Table]:
    table = Table(title=title)
    for name in ("what", "measured", ""):
        table.add_column(name, justify="right" if name == "measured" else "left")
    yield table
    console.print(table)


def _submits(
    table: Table,
    figures: Figures,
    services: LocalServices,
    jobs: Callable[[int], list[Job]],
    *,
    count: int,
    rounds: int,
) -> None:
    """Submit to a queue that nobody serves, in turn with Celery."""
    server = redis.Redis.from_url(services.redis.url)
    ours, celery, held = [], [], []
    traffic: dict[str, float] = {}
    for _ in range(rounds):
        settings = ClientSettings(redis_url=services.redis.url, namespace=f"queue-{uuid.uuid4().hex[:8]}")
        made = jobs(count)
        with Client(settings) as client:
            client.submit_many(jobs(1))
            before, memory = _traffic(server), server.info("memory")["used_memory"]
            started = time.perf_counter()
            client.submit_many(made)
            ours.append(count / (time.perf_counter() - started))
            traffic = {name: (value - before[name]) / count for name, value in _traffic(server).items()}
            held.append((server.info("memory")["used_memory"] - memory) / count)
        celery.append(count / _plain_celery(settings, count))
    share = statistics.median(mine / theirs for mine, theirs in zip(ours, celery, strict=True))
    table.add_row("submit_many", f"{statistics.median(ours):,.0f}/s", f"{share:.2f} x Celery's")
    table.add_row("Celery's own apply_async, without a ledger", f"{statistics.median(celery):,.0f}/s", "")
    table.add_row("Redis, per queued job", f"{statistics.median(held):,.0f} bytes", "")
    said = ", ".join(f"{value:.3g} {name}" for name, value in traffic.items())
    table.add_row("Redis, per submitted job", said, "")
    figures["queue.submit_share"] = share
    figures["queue.submit_per_s"] = statistics.median(ours)
    figures["queue.celery_per_s"] = statistics.median(celery)
    figures["queue.bytes_per_job"] = statistics.median(held)
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


def _backlog(table: Table, figures: Figures, services: LocalServices, jobs: Callable[..., list[Job]]) -> None:
    """Submit a job behind 100,000 of another tenant, cancel these, and submit another one."""
    with running_worker(services, DEMO_WEIGHTS, prompts="demo") as (client, _):
        client.submit(jobs(1)[0]).wait(timeout=300)
        alone_s = _seconds(client, jobs(1, tenant="small")[0])
        batch = client.submit_many(jobs(BACKLOG, tenant="large"), batch_id="large")
        job = jobs(1, tenant="small")[0]
        before = batch.counts()
        handle = client.submit(job)
        handle.wait(timeout=900)
        others = _begun_meanwhile(client, islice(batch.job_ids(), before.ended + 200), handle.status())
        behind_s = _seconds(client, jobs(1, tenant="small")[0])
        started = time.perf_counter()
        with ThreadPoolExecutor(1) as canceller:
            cancelling = canceller.submit(batch.cancel)
            meanwhile_s = _seconds_to_start(client, jobs(1, tenant="fresh")[0])
            still = not cancelling.done()
            cancelling.result()
        cancelled_s = time.perf_counter() - started
        delay_s = _seconds_to_start(client, jobs(1, tenant="fresh")[0])
    table.add_row("jobs that begin before another tenant's single one", f"{others}", "")
    table.add_row("that job, from submit to result", f"{behind_s * 1000:.0f} ms", f"{alone_s * 1000:.0f} ms alone")
    table.add_row("cancelling them", f"{cancelled_s:.1f} s", "")
    said = "" if still else "it had ended before"
    table.add_row("a job meanwhile, from submit to its start", f"{meanwhile_s * 1000:.0f} ms", said)
    table.add_row("a job after that, from submit to its start", f"{delay_s * 1000:.0f} ms", "")
    figures["queue.other_tenant_wait_jobs"] = others
    figures["queue.other_tenant_s"] = behind_s
    figures["queue.cancel_s"] = cancelled_s
    figures["queue.during_cancel_s"] = meanwhile_s
    figures["queue.after_cancel_s"] = delay_s


def _begun_meanwhile(client: Client, job_ids: Iterable[str], job: JobStatus) -> int:
    """Count those of the jobs that began between a job's submit and its own begin."""
    assert job.claimed_at is not None
    began = [status.claimed_at for status in client.statuses(job_ids)]
    return sum(1 for at in began if at is not None and job.submitted_at <= at < job.claimed_at)


def _seconds_to_start(client: Client, job: Job) -> float:
    handle = client.submit(job)
    handle.wait(timeout=900)
    status = handle.status()
    assert status.claimed_at is not None
    return (status.claimed_at - status.submitted_at).total_seconds()


def _seconds(client: Client, job: Job) -> float:
    started = time.perf_counter()
    client.submit(job).wait(timeout=900)
    return time.perf_counter() - started
