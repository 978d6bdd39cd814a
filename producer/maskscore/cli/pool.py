"""``pool``: workers on this machine, as many as the backlog asks for."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from maskscore.broker import public_url
from maskscore.cli.optional_dependencies import check_installed, needs_extra
from maskscore.cli.worker import named_folder, refuse_unknown_variables, with_demo_model
from maskscore.errors import SettingsError
from maskscore.observability import log_json_early, log_to_stderr
from maskscore.pool import choose_slots, pool_limits, run_pool, slots_of_models
from maskscore.schema import DEFAULT_MODEL_NAME
from maskscore.settings import PREFIX, WorkerSettings, load_settings

__all__ = ["pool_command"]

log = logging.getLogger("maskscore.pool")


@click.command("pool")
@click.option(
    "--devices", help="Devices with one worker each, such as cuda:0,cuda:1; auto: every GPU.  [default: auto]"
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Number of CPU workers, each with its own cores; instead of --devices.",
)
@click.option("--weights", metavar="DIR", help="Weights folder; demo: the small demo model.  [MASKSCORE_WEIGHTS]")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME=DIR",
    help="A model and its weights folder, with workers of its own on every device; repeatable, instead of --weights. "
    "The name default is for jobs that ask for no model.",
)
@click.option(
    "--min",
    "least",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Minimum number of workers, of each model.",
)
@click.option(
    "--max",
    "most",
    type=click.IntRange(min=1),
    help="Maximum number of workers, of each model.  [default: one per device]",
)
@click.option(
    "--jobs-per-worker",
    type=click.IntRange(min=1),
    help="Unfinished jobs per worker: sets how many workers a backlog needs.  [default: twice MASKSCORE_CONCURRENCY]",
)
@click.option(
    "--cool-down",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds for which fewer workers must suffice before surplus workers are stopped.",
)
@click.option(
    "--every",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Seconds between two readings of the backlog.",
)
def pool_command(
    devices: str | None,
    workers: int | None,
    weights: str | None,
    models: tuple[str, ...],
    least: int,
    most: int | None,
    jobs_per_worker: int | None,
    cool_down: float,
    every: float,
) -> None:
    """Run one worker per device, as many as the backlog asks for.

    With several models, each has up to one worker per device, as many as its own jobs ask for.

    Workers that die are started again. SIGTERM or Ctrl-C drains all of them (twice: they give back what runs), SIGHUP
    replaces them one by one, each when its successor takes jobs. All settings of `maskscore worker` but the device are
    passed on as their MASKSCORE_... variables.
    """
    if devices is not None and workers is not None:
        raise click.UsageError("give either --devices or --workers")
    with needs_extra("worker"):
        log_json_early()
    refuse_unknown_variables()
    if models and weights is not None:
        raise click.UsageError("give either --weights or --model NAME=DIR")
    folders = dict(map(named_folder, models))
    if len(folders) < len(models):
        raise click.UsageError("--model: a name is given twice")
    if weights is not None:
        # The workers read it from there, as all other settings.
        os.environ[f"{PREFIX}WEIGHTS"] = weights
    settings = load_settings(WorkerSettings)
    for module in ("torch", "open_clip"):
        check_installed(module, "worker")
    log_to_stderr(settings.log_level, settings.log_format)
    slots = choose_slots(devices, workers)
    limits = pool_limits(least, most, jobs_per_worker or 2 * settings.concurrency, cool_down, slots=len(slots))
    all_weights = [*map(Path, folders.values())] if folders else [settings.weights] if settings.weights else []
    if not all_weights:
        # Else each worker would end with this error, and be started again.
        raise SettingsError(
            "No weights are set. Give their folder with --weights or MASKSCORE_WEIGHTS; `maskscore weights pull DIR` "
            "fetches them, and `--weights demo` is the small demo model."
        )
    for given in all_weights:
        folder = with_demo_model(settings.model_copy(update={"weights": given})).weights or given
        if not any(folder.glob("open_clip_*")):
            what = "holds no weights" if folder.is_dir() else "is not a folder"
            raise SettingsError(f"{folder} {what}. Fetch some with `maskscore weights pull {folder}`.")
    model = settings.model_name or DEFAULT_MODEL_NAME
    log.info(
        "%s: %d to %d, on %s; one per %d jobs of %s, namespace %r",
        f"workers of each model ({', '.join(folders)})" if folders else "workers",
        limits.least,
        limits.most,
        ", ".join(slot.name for slot in slots),
        limits.jobs_per_worker,
        public_url(settings.redis_url),
        settings.namespace,
    )
    slots = slots_of_models(slots, folders) if folders else [replace(slot, model=model) for slot in slots]
    sys.exit(run_pool(settings, slots, limits, every_s=every))
