"""Shards of tar files against one job per image of the same images, and what one process hands to a device.

Shares are of the bare forward in fp32, as :mod:`bench.service` takes them.
"""

from __future__ import annotations

import statistics
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
from rich.console import Console
from rich.table import Table

from bench import feeding, shard_sizes
from bench.figures import Figures
from bench.forward import bare_forward, load_full_size, random_crops
from bench.material import full_size_weights, masks, photograph
from bench.service import Rates, add_round, add_row, submit_and_wait
from bench.stack import BUCKET, cpu_seconds, running_services, running_worker, upload
from maskscore import Client, Job, ScoringOptions
from maskscore.schema import MasksRef, Shard, TarSource
from shard_tars import Files, pair_of, write_tar

__all__ = ["run"]

OPTIONS = ScoringOptions(prompts="demo")


@dataclass(frozen=True, slots=True)
class _Load:
    """Photos with so many masks each: in a tar, and as single objects."""

    masks: int
    images: int
    tar: TarSource
    image: str
    annotations: str


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure all of it."""
    _run_shares(console, figures, full=full)
    shard_sizes.run(console, figures, full=full)
    feeding.run(console, figures, full=full)


def _run_shares(console: Console, figures: Figures, *, full: bool) -> None:
    weights = full_size_weights()
    forward = bare_forward(load_full_size("fp32"))
    crops = random_crops(160)
    forward(crops[:16])
    rounds = 5 if full else 3
    table = Table(title="masks per second of tar files and of single jobs, ViT-B-32 at full size, fp32")
    table.caption = f"medians of {rounds} rounds"
    for column in ("load", "masks/s", "share", "masks per core-s", "share by processor time"):
        table.add_column(column, justify="left" if column == "load" else "right")
    with running_services() as services:
        loads = _loads(3 if full else 1)
        rates = {name: Rates() for name in ("bare", *(f"{kind}_{each}" for kind in ("job", "shard") for each in loads))}
        settings = {"precision": "fp32", "result_buckets": BUCKET}
        with running_worker(services, weights, prompts="demo", **settings) as (client, worker):
            _submit_jobs(client, loads[5], 5)
            for _ in range(rounds):
                add_round(rates["bare"], len(crops), lambda: forward(crops), time.process_time)
                for each, load in loads.items():
                    # A shard of as many masks as there are in the jobs would be all beginning and end.
                    jobs = load.images // 2
                    add_round(
                        rates[f"job_{each}"],
                        jobs * each,
                        lambda: _submit_jobs(client, load, jobs),  # noqa: B023
                        lambda: cpu_seconds(worker.pid),
                    )
                    add_round(
                        rates[f"shard_{each}"],
                        load.images * each,
                        lambda: _submit_shard(client, load),  # noqa: B023
                        lambda: cpu_seconds(worker.pid),
                    )
    bare = rates.pop("bare")
    add_row(table, "bare forward", bare, bare)
    for name, rate in rates.items():
        kind, _, number = name.partition("_")
        what, prefix = ("a shard", "shards.") if kind == "shard" else ("jobs", "shards.jobs_")
        wall, cpu = add_row(table, f"{what}, {number} masks per image", rate, bare)
        figures[f"{prefix}share_{number}"] = wall
        figures[f"{prefix}cpu_share_{number}"] = cpu
        figures[f"{prefix}masks_per_s_{number}"] = statistics.median(rate.wall)
    console.print(table)


def _loads(factor: int) -> dict[int, _Load]:
    large = pair_of("large", 1, photograph(), masks(100))
    small = pair_of("small", 2, photograph(480, 640), masks(5, height=480, width=640))
    return {100: _uploaded(100, 10 * factor, large), 5: _uploaded(5, 160 * factor, small)}


def _uploaded(each: int, images: int, pair: Files) -> _Load:
    image, annotations = (upload(data, name) for name, data in pair)
    with TemporaryDirectory() as folder:
        files = ((f"sa_{n}{Path(name).suffix}", data) for n in range(images) for name, data in pair)
        path = write_tar(Path(folder) / f"{each}.tar", files)
        boto3.session.Session().client("s3").upload_file(str(path), BUCKET, path.name)
    return _Load(each, images, TarSource(uri=f"s3://{BUCKET}/{each}.tar"), image, annotations)


def _submit_jobs(client: Client, load: _Load, count: int) -> None:
    jobs = [
        Job(
            job_id=(job_id := uuid.uuid4().hex),
            image=load.image,
            masks=MasksRef(uri=load.annotations),
            options=OPTIONS,
            result_uri=f"s3://{BUCKET}/results/{job_id}.json",
        )
        for _ in range(count)
    ]
    submit_and_wait(client, jobs)


def _submit_shard(client: Client, load: _Load) -> None:
    name = uuid.uuid4().hex
    shard = Shard(source=load.tar, name=name, output_uri=f"s3://{BUCKET}/parts/", options=OPTIONS)
    result = client.submit_shard(shard).wait(timeout=1800)
    assert result.shard is not None
    counts = result.shard.counts
    if (counts.images, counts.failed, counts.masks - counts.skipped) != (load.images, 0, load.images * load.masks):
        raise AssertionError(f"a shard of the benchmark did not succeed: {result}")
