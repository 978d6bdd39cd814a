"""``plan``: what scoring a number of images takes."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import click
from rich.table import Table

from maskscore.cli.terminal import new_console
from maskscore.dataset import PAIRS_PER_LIST
from maskscore.settings import ClientSettings, load_settings
from maskscore.shards import RANGE_BYTES
from maskscore.sizing import Capacity, Plan, Sharding, Workload, make_plan, read_rate

__all__ = ["duration", "plan_command", "worker_rate"]

_OF_SHARDS = ("shards", "parts", "gets", "puts")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of ``90``, ``90s``, ``15m``, ``24h`` or ``2d``: a callback of an option."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", value.strip())
    if not found or float(found[1]) == 0:
        raise click.BadParameter(f"{value!r} is no duration. Give 90s, 15m, 24h or 2d.", ctx, param)
    return float(found[1]) * _UNITS[found[2] or "s"]


def worker_rate(masks_per_s: float | None, rates: Path | None, name: str | None) -> tuple[float, str]:
    """Return the rate of one worker in masks/s, and where it comes from."""
    if (masks_per_s is None) == (rates is None):
        raise click.UsageError(
            "give the rate of one worker: either --masks-per-s, or --rates with the file of `make bench`"
        )
    if masks_per_s is not None:
        return masks_per_s, "given by --masks-per-s"
    assert rates is not None
    name, rate = read_rate(rates, name)
    return rate, f"measured, {name} of {rates}"


@click.command("plan")
@click.option("--images", type=click.IntRange(min=1), required=True, help="Images, each a job, or in shards.")
@click.option(
    "--masks-per-image", type=click.FloatRange(min=0, min_open=True), required=True, help="Average per image."
)
@click.option(
    "--image-bytes", type=click.IntRange(min=0), default=1_000_000, show_default=True, help="Average size of an image."
)
@click.option(
    "--mask-bytes",
    type=click.IntRange(min=0),
    default=650,
    show_default=True,
    help="Average size of one mask in the masks' object; the default is that of COCO RLE in JSON.",
)
@click.option(
    "--inline", is_flag=True, help="The masks are inside the job documents or lists, not in objects of their own."
)
@click.option(
    "--shards",
    type=click.Choice(["tars", "pairs"]),
    help="Score many images per job, into Parquet: those of tar files, or loose pairs in lists.",
)
@click.option("--shard-images", type=click.IntRange(min=1), help=f"Images of a shard.  [default: {PAIRS_PER_LIST}]")
@click.option(
    "--results", type=click.Choice(["redis", "s3"]), default="redis", show_default=True, help="Where results go."
)
@click.option(
    "--deadline", callback=duration, metavar="TIME", help="Time limit, such as 24h: estimate the workers that it takes."
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Number of workers, instead of --deadline: estimate the time."
)
@click.option("--masks-per-s", type=click.FloatRange(min=0, min_open=True), help="Measured rate of one worker.")
@click.option(
    "--rates",
    type=click.Path(path_type=Path),
    help="File of rates that `make bench` has written, instead of --masks-per-s.",
)
@click.option("--rate", "name", help="Name of the rate in that file.  [default: the slowest of the whole service]")
@click.option(
    "--utilization",
    "--counted-on",
    "utilization",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=0.8,
    show_default=True,
    help="Share of the rate that is reached on average; starts, restarts and slow storage cost the rest.",
)
@click.option(
    "--worker-cost-per-hour",
    "--workers-cost-per-hour",
    "cost",
    type=click.FloatRange(min=0),
    help="What one worker costs per hour, in any currency.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def plan_command(
    images: int,
    masks_per_image: float,
    image_bytes: int,
    mask_bytes: int,
    inline: bool,
    shards: str | None,
    shard_images: int | None,
    results: str,
    deadline: float | None,
    workers: int | None,
    masks_per_s: float | None,
    rates: Path | None,
    name: str | None,
    utilization: float,
    cost: float | None,
    as_json: bool,
) -> None:
    """Estimate workers, hours, traffic, memory and cost of a dataset.

    Give the rate of one worker, as `make bench` measures it on your machine. Everything else is calculated from it; the
    assumptions are printed.
    """
    if deadline is not None and workers is not None:
        raise click.UsageError("give either --deadline or --workers")
    rate, origin = worker_rate(masks_per_s, rates, name)
    settings = load_settings(ClientSettings)
    if shards is None and shard_images is not None:
        raise click.UsageError("--shard-images goes with --shards")
    if shards == "tars" and inline:
        raise click.UsageError("--inline does not go with --shards tars: their masks are members")
    sharding = None if shards is None else Sharding(shards == "tars", shard_images or PAIRS_PER_LIST)
    in_redis = results == "redis" and sharding is None
    work = Workload(images, masks_per_image, image_bytes, mask_bytes, inline, in_redis, sharding)
    capacity = Capacity(
        masks_per_s=rate,
        utilization=utilization,
        deadline_s=deadline,
        workers=workers or (1 if deadline is None else None),
        queue_limit=settings.queue_limit,
        kept_s=settings.result_ttl_s,
        cost_per_hour=cost,
    )
    plan = make_plan(work, capacity)
    assumptions = _assumptions(work, capacity, origin)
    if as_json:
        fields = {name: value for name, value in dataclasses.asdict(plan).items() if name not in _OF_SHARDS or sharding}
        click.echo(json.dumps({**fields, "redis_bytes": plan.redis_bytes, "assumptions": assumptions}))
        return
    _print(plan, work, capacity, assumptions)


def _print(plan: Plan, work: Workload, capacity: Capacity, assumptions: list[str]) -> None:
    rows = Table(box=None, pad_edge=False, show_header=False)
    rows.add_column(no_wrap=True, style="bold")
    rows.add_column(justify="right", no_wrap=True)
    rows.add_column()
    each = f"{_short(plan.masks_per_s / plan.workers)} masks/s each"
    in_time = "" if capacity.deadline_s is None else f"of {capacity.deadline_s / 3600:g}; "
    rows.add_row("images", f"{plan.images:,}", f"{_short(plan.images_per_s)}/s")
    rows.add_row("masks", f"{plan.masks:,}", f"{_short(plan.masks_per_s)}/s")
    rows.add_row("workers", f"{plan.workers:,}", f"a GPU for each; {each}")
    rows.add_row("hours", f"{plan.hours:,.1f}", f"{in_time}{plan.worker_hours:,.1f} worker-hours")
    sharding = work.shards
    if sharding is not None:
        kind = "tar files" if sharding.tars else "lists"
        rows.add_row("shards", f"{plan.shards:,}", f"{kind} of {sharding.images:,} images")
    requests = f"{_short(plan.reads_per_s)} requests/s" if plan.gets is None else f"{plan.gets:,} GETs"
    rows.add_row(
        "read from S3",
        _size(plan.read_bytes),
        f"{_size(plan.read_bytes_per_s)}/s, {_size(plan.read_bytes_per_s_per_worker)}/s per worker; {requests}",
    )
    if not work.results_in_redis:
        puts = "" if plan.puts is None else f"; {plan.puts:,} PUTs"
        rows.add_row("written to S3", _size(plan.written_bytes), f"{_size(plan.written_bytes_per_s)}/s{puts}")
    if plan.parts is not None:
        rows.add_row("parts", f"{plan.parts:,}", f"two files each, {_size(plan.written_bytes / plan.parts)} together")
    what = "jobs" if sharding is None else "shards"
    rows.add_row(
        "Redis, at most",
        _size(plan.redis_bytes),
        f"{_size(plan.redis_queued_bytes)} for queued {what}, {_size(plan.redis_ended_bytes)} for ended ones",
    )
    rows.add_row("cost", "unknown" if plan.cost is None else f"{plan.cost:,.2f}", _price(capacity))
    console = new_console()
    console.print(rows)
    console.print("\nAssumed:")
    for assumption in assumptions:
        listed = Table.grid(padding=(0, 1))
        listed.add_row("-", assumption)
        console.print(listed)


def _price(capacity: Capacity) -> str:
    if capacity.cost_per_hour is None:
        return "give --worker-cost-per-hour"
    return f"{capacity.cost_per_hour:,.2f} per worker and hour"


def _assumptions(work: Workload, capacity: Capacity, origin: str) -> list[str]:
    where = "in Redis" if work.results_in_redis else "an object per image"
    what, per = ("jobs", "job and mask") if work.shards is None else ("shards", "shard")
    results = f"Results: {where}." if work.shards is None else _parts(work.shards)
    return [
        f"One worker scores {capacity.masks_per_s:,.5g} masks/s ({origin}); {capacity.utilization:.0%} of that is "
        "assumed to be reached. The rate is that of its machine: its GPU, its cores, its way to the storage.",
        f"All workers are there from the beginning; {work.masks_per_image:g} masks and {work.image_bytes:,} bytes per "
        f"image, on average; masks: {_masks(work)}.",
        f"{results} What has ended is kept for {capacity.kept_s / 86400:g} days (MASKSCORE_RESULT_TTL_S); "
        f"at most {capacity.queue_limit:,} {what} are queued (MASKSCORE_QUEUE_LIMIT), the producer waits for room.",
        f"Redis: bytes per {per} as `python -m maskscore.sizing.measure` has measured them. Give it half as much "
        "again: it copies pages while it rewrites its append-only file.",
        "Cost: the workers' hours only; no storage, no requests, no Redis.",
    ]


def _masks(work: Workload) -> str:
    each = f"{work.mask_bytes:,} bytes per mask"
    if work.shards is not None and work.shards.tars:
        return f"members of the tars, {each}"
    if work.inline:
        return "inline in the jobs" if work.shards is None else f"inline in the lists, {each}"
    return f"an object per image, {each}"


def _parts(shards: Sharding) -> str:
    reads = f"A tar is read {RANGE_BYTES >> 20} MiB per request." if shards.tars else "A list is written by `run`."
    return f"{reads} A part ends after {shards.part_images:,} images or {shards.part_masks:,} masks."


def _short(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:,.3g}"


def _size(amount: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"
