"""Shards of tar files against one job per image of the same images, and what one process hands to a device.

Shares are of the bare forward in fp32, as :mod:`bench.shares` takes them.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
from rich.console import Console

from bench import feeding, shard_sizes
from bench.figures import Figures
from bench.forward import bare_forward, load_full_size, random_crops
from bench.material import full_size_weights, masks, photograph
from bench.service import submit_and_wait
from bench.shares import Load, add_row, measure, table_of_shares
from bench.stack import BUCKET, running_services, running_worker, upload
from maskscore import Client, Job, ScoringOptions
from maskscore.schema import MasksRef, Shard, TarSource
from shard_tars import Files, pair_of, write_tar

__all__ = ["run"]

OPTIONS = ScoringOptions(prompts="demo")


@dataclass(frozen=True, slots=True)
class _Tar:
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
    crops = random_crops(64)
    forward(crops[:16])
    rounds = 12 if full else 5
    table = table_of_shares("masks per second of tar files and of single jobs, ViT-B-32 at full size, fp32", rounds)
    with running_services() as services:
        loads = _loads(3 if full else 1)
        settings = {"precision": "fp32", "result_buckets": BUCKET}
        with running_worker(services, weights, prompts="demo", **settings) as (client, worker):
            _submit_jobs(client, loads[5], 5)
            calls = {}
            for each, load in loads.items():
                # A shard of as many masks as there are in the jobs would be all beginning and end.
                jobs = load.images // 2
                calls[f"jobs_{each}"] = Load(jobs * each, partial(_submit_jobs, client, load, jobs))
                calls[f"shard_{each}"] = Load(load.images * each, partial(_submit_shard, client, load))
            rates, forwards = measure(
                lambda: calls, Load(len(crops), partial(forward, crops)), worker.pid, rounds=rounds
            )
    add_row(table, "bare forward", forwards)
    for name, rate in rates.items():
        kind, _, number = name.partition("_")
        what, prefix = ("a shard", "shards.") if kind == "shard" else ("jobs", "shards.jobs_")
        add_row(table, f"{what}, {number} masks per image", rate)
        figures[f"{prefix}share_{number}"] = rate.share
        figures[f"{prefix}cpu_share_{number}"] = rate.cpu_share
        figures[f"{prefix}masks_per_s_{number}"] = rate.masks_per_s
    console.print(table)


def _loads(factor: int) -> dict[int, _Tar]:
    # A shard's first crops and its last part meet an idle core: 1,000 masks are half a minute.
    large = pair_of("large", 1, photograph(), masks(100))
    small = pair_of("small", 2, photograph(480, 640), masks(5, height=480, width=640))
    return {100: _uploaded(100, 10 * factor, large), 5: _uploaded(5, 80 * factor, small)}


def _uploaded(each: int, images: int, pair: Files) -> _Tar:
    image, annotations = (upload(data, name) for name, data in pair)
    with TemporaryDirectory() as folder:
        files = ((f"sa_{n}{Path(name).suffix}", data) for n in range(images) for name, data in pair)
        path = write_tar(Path(folder) / f"{each}.tar", files)
        boto3.session.Session().client("s3").upload_file(str(path), BUCKET, path.name)
    return _Tar(each, images, TarSource(uri=f"s3://{BUCKET}/{each}.tar"), image, annotations)


def _submit_jobs(client: Client, load: _Tar, count: int) -> None:
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


def _submit_shard(client: Client, load: _Tar) -> None:
    name = uuid.uuid4().hex
    shard = Shard(source=load.tar, name=name, output_uri=f"s3://{BUCKET}/parts/", options=OPTIONS)
    result = client.submit_shard(shard).wait(timeout=1800)
    assert result.shard is not None
    counts = result.shard.counts
    if (counts.images, counts.failed, counts.masks - counts.skipped) != (load.images, 0, load.images * load.masks):
        raise AssertionError(f"a shard of the benchmark did not succeed: {result}")
