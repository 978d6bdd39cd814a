"""What ``maskscore run`` takes over tar files, and over single jobs: Redis, requests to S3, memory of both sides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
import redis
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.material import masks, photograph
from bench.stack import BUCKET, resident_mb, running_services, running_worker, upload
from chaos.s3_faults import S3FaultProxy
from maskscore import Client
from maskscore.devstack import LocalServices
from maskscore.settings import WorkerSettings
from maskscore_worker.demo.run import DEMO_WEIGHTS
from shard_tars import Files, drawn_pairs, pair_of, write_tar

__all__ = ["run"]

_LOOK_EVERY_S = 0.25
_JOBS = 100
_SCENES = 250
"""Drawn scenes of each tar: one part."""


@dataclass(frozen=True, slots=True)
class _Look:
    """How many images were done, the bytes of all keys in Redis, and the memory of the worker and the producer."""

    images: int
    redis_bytes: int
    worker_mb: float
    producer_mb: float


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Run the command over tars of photos, single photos, and tars of drawn scenes."""
    with running_services() as services:
        photo = pair_of("photo", 1, photograph(), masks(1))
        photos = _put_tars("photos", 2 if not full else 6, 500, photo)
        scenes = _put_tars("scenes", 24 if not full else 400, _SCENES, drawn_pairs(20, (120, 160)))
        for number in range(_JOBS):
            for name, data in photo:
                upload(data, f"single/sa_{number}{Path(name).suffix}")
        of_shards, asked = _watched_run(services, f"s3://{BUCKET}/photos-*.tar", photos)
        of_jobs, asked_by_jobs = _watched_run(services, f"s3://{BUCKET}/single/", _JOBS)
        of_scenes, _ = _watched_run(services, f"s3://{BUCKET}/scenes-*.tar", scenes)
    table = Table(title="photos of 2250 x 1500")
    for column in ("", "images", "Redis at most, bytes per image", "requests to S3 per image"):
        table.add_column(column, justify="right" if column else "left")
    for name, count, looks, requests in (
        ("tar files", photos, of_shards, asked),
        ("single jobs", _JOBS, of_jobs, asked_by_jobs),
    ):
        in_redis = max(look.redis_bytes for look in looks) / count
        table.add_row(name, f"{count:,}", f"{in_redis:,.1f}", f"{requests / count:.3f}")
        prefix = "shards." if looks is of_shards else "shards.jobs_"
        figures[f"{prefix}redis_bytes_per_image"] = in_redis
        figures[f"{prefix}requests_per_image"] = requests / count
    console.print(table)
    table = Table(title=f"{scenes:,} drawn scenes in tar files: resident MiB, at most until then")
    for column in ("images", "worker", "producer"):
        table.add_column(column, justify="right")
    for eighth in range(1, 9):
        limit = scenes * eighth // 8
        table.add_row(f"{limit:,}", *(f"{_most(of_scenes, limit, side):.0f}" for side in ("worker_mb", "producer_mb")))
    console.print(table)
    # With the first part of each shard that a worker has in hand, it loads what makes and stores tables, and takes the
    # memory that later parts use again. They are through when two more shards than that have ended.
    first = (WorkerSettings.model_fields["concurrency"].default + 2) * _SCENES
    for side in ("worker", "producer"):
        growth = _most(of_scenes, scenes, f"{side}_mb") - _most(of_scenes, first, f"{side}_mb")
        console.print(f"growth of the {side} after the first parts ({first:,} images): {growth:+.0f} MiB")
        figures[f"shards.{side}_growth_mb"] = growth


def _most(looks: list[_Look], images: int, side: str) -> float:
    return max((getattr(look, side) for look in looks if look.images <= images), default=0.0)


def _put_tars(name: str, tars: int, each: int, pairs: Files) -> int:
    """Put tars of ``each`` images, copies of one, and return the number of images."""
    client = boto3.session.Session().client("s3")
    with TemporaryDirectory() as folder:
        kinds = len(pairs) // 2
        files = (
            (f"sa_{n}{Path(inner).suffix}", data)
            for n in range(each)
            for inner, data in pairs[2 * (n % kinds) : 2 * (n % kinds) + 2]
        )
        path = write_tar(Path(folder) / "images.tar", files)
        client.upload_file(str(path), BUCKET, f"{name}-0.tar")
    for number in range(1, tars):
        client.copy_object(Bucket=BUCKET, Key=f"{name}-{number}.tar", CopySource=f"{BUCKET}/{name}-0.tar")
    return tars * each


def _watched_run(services: LocalServices, images: str, count: int) -> tuple[list[_Look], int]:
    """Run the command and a worker until all images are done; return the looks, and the worker's requests to S3."""
    output = f"s3://{BUCKET}/out-{uuid.uuid4().hex[:8]}/"
    port = int(services.s3.endpoint_url.rpartition(":")[2])
    with S3FaultProxy(port) as proxy:
        endpoint = f"http://127.0.0.1:{proxy.port}"
        with running_worker(services, DEMO_WEIGHTS, prompts="demo", endpoint_url=endpoint, result_buckets=BUCKET) as (
            client,
            worker,
        ):
            command = [sys.executable, "-m", "maskscore", "run", images, "--prompts", "demo", "--json"]
            command += ["-o" if images.endswith(".tar") else "--result-uri", output]
            command += ["--batch-id", "bench"]
            environment = {**os.environ, "MASKSCORE_NAMESPACE": client.settings.namespace}
            server = redis.Redis.from_url(services.redis.url)
            before, asked = _bytes_in(server), proxy.asked
            with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
                try:
                    looks = []
                    while process.poll() is None:
                        looks.append(
                            _Look(
                                _images_done(client),
                                _bytes_in(server) - before,
                                resident_mb(worker.pid),
                                resident_mb(process.pid),
                            )
                        )
                        time.sleep(_LOOK_EVERY_S)
                    out, _ = process.communicate(timeout=60)
                finally:
                    process.kill()
            requests = proxy.asked - asked
    summary: dict[str, Any] = json.loads(out)
    if process.returncode or summary.get("images", sum(summary["states"].values())) != count:
        raise AssertionError(f"the run of the benchmark ended with {process.returncode}: {summary}")
    return looks, requests


def _images_done(client: Client) -> int:
    """Return the images of the committed parts; 0 for a batch of single jobs."""
    try:
        ids = list(client.batch("bench").job_ids())
    except Exception:  # not there yet
        return 0
    return sum(status.progress.images for status in client.statuses(ids) if status.progress is not None)


def _bytes_in(server: redis.Redis) -> int:
    """Return what all keys take."""
    return sum(server.memory_usage(key, samples=0) or 0 for key in server.scan_iter(count=1000))
