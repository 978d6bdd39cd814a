"""``worker``: one worker process, with an option for every setting."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from maskscore.cli.exit_codes import Exit
from maskscore.cli.optional_dependencies import needs_extra
from maskscore.errors import SettingsError
from maskscore.observability import log_json_early
from maskscore.prompts import DEMO_PROMPTS, DEMO_WEIGHTS
from maskscore.schema import DEFAULT_MODEL_NAME
from maskscore.settings import PREFIX, WorkerSettings, default_text, load_settings, unknown_variables
from maskscore.worker_entry_points import worker_part

__all__ = ["named_folder", "refuse_unknown_variables", "with_demo_model", "worker_command"]


def _options() -> list[click.Parameter]:
    options: list[click.Parameter] = []
    for name, field in WorkerSettings.model_fields.items():
        text = f"{(field.description or '').replace('`', '')}  [{PREFIX}{name.upper()}; default: {default_text(field)}]"
        options.append(click.Option([f"--{name.replace('_', '-')}", name], metavar="VALUE", help=text))
    return options


def refuse_unknown_variables() -> None:
    """Name the ``MASKSCORE_…`` variables that are no settings and exit with code 2, if there are any."""
    unknown = unknown_variables()
    if unknown:
        for name, meant in unknown.items():
            click.echo(f"maskscore: {name} is no setting{f'; did you mean {meant}?' if meant else '.'}", err=True)
        click.echo("maskscore: correct or unset what is misspelt; `maskscore settings` lists the settings.", err=True)
        sys.exit(Exit.WRONG_INPUT)


def with_demo_model(settings: WorkerSettings) -> WorkerSettings:
    """Return the settings with the demo model's folder and prompts where the weights are ``demo``, and no folder is."""
    if settings.weights != Path(DEMO_WEIGHTS) or settings.weights.exists():
        return settings
    with needs_extra("worker"):
        folder: Path = worker_part("demo-weights")
    prompts = {} if "prompts" in settings.model_fields_set else {"prompts": DEMO_PROMPTS}
    return settings.model_copy(update={"weights": folder, **prompts})


def named_folder(text: str) -> tuple[str, str]:
    """Return the name and the folder of ``NAME=DIR``, which ``--model`` takes. Raises :class:`click.UsageError`."""
    name, _, folder = text.partition("=")
    if not folder:
        raise click.UsageError(f"--model {text!r:.200}: write NAME=DIR, such as siglip=weights/siglip")
    try:
        return load_settings(WorkerSettings, model_name=name).model_name or DEFAULT_MODEL_NAME, folder
    except SettingsError as error:
        raise click.UsageError(f"--model {text!r:.200}: {error}") from error


def _run(**given: Any) -> None:
    with needs_extra("worker"):
        log_json_early(given.get("log_format"))
    refuse_unknown_variables()
    settings = with_demo_model(load_settings(WorkerSettings, **given))
    with needs_extra("worker"):
        run = worker_part("run")
    exit_code = run(settings)
    # Everything is closed. Python would now take PyTorch apart, which takes seconds of a drain and frees nothing that
    # the end of the process does not.
    logging.shutdown()
    os._exit(exit_code)


worker_command = click.Command(
    "worker",
    callback=_run,
    params=_options(),
    help="Take jobs and score them, until SIGTERM or Ctrl-C; what runs then is finished first.\n\nEvery setting can be "
    "given here or as its MASKSCORE_... variable; the option wins.",
    short_help="Take jobs and score them.",
)
