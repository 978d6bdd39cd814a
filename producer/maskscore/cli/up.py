"""``up``: a whole deployment on this machine, in the foreground."""

from __future__ import annotations

import shlex
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import click

from maskscore.cli.exit_codes import Exit
from maskscore.cli.optional_dependencies import check_installed, needs_extra
from maskscore.cli.terminal import new_console
from maskscore.cli.worker import named_folder
from maskscore.prompts import DEMO_WEIGHTS
from maskscore.schema import DEFAULT_MODEL_NAME
from maskscore.worker_entry_points import worker_part

__all__ = ["up_command"]

# What a client needs; the rest of the services' environment guards against settings that a new shell does not have.
_EXPORTED = (
    "MASKSCORE_REDIS_URL",
    "AWS_ENDPOINT_URL",
    # Where a shell has one, it goes before the other.
    "AWS_ENDPOINT_URL_S3",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
    "MASKSCORE_BUCKETS",
)
_ENV_FILE = "env"


@click.command("up")
@click.option(
    "--weights",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Weights folder.  [default: the small demo model, which knows drawn shapes only]",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME=DIR",
    help="A further model and its weights folder, with a worker of its own; repeatable.",
)
@click.option(
    "--bucket",
    "buckets",
    multiple=True,
    default=("photos", "masks", "results"),
    show_default=True,
    help="Bucket to create; repeatable.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the data is kept.  [default: a temporary folder, removed at the end]",
)
@click.option("--device", default="auto", show_default=True, help="Device of the worker.")
def up_command(
    weights: Path | None, models: tuple[str, ...], buckets: tuple[str, ...], directory: Path | None, device: str
) -> None:
    """Run Redis, S3 and one worker on this machine, in the foreground.

    Prints the variables to export in other terminals.

    Ctrl-C stops all of them, and removes jobs, results and objects unless --dir was given. With --dir they are kept,
    and so are ports and passwords: the same command goes on with them.
    """
    folders = dict(map(named_folder, models))
    if len(folders) < len(models) or DEFAULT_MODEL_NAME in folders:
        raise click.UsageError("--model: a name is given twice; that of --weights is default")
    for name, folder in folders.items():
        if folder != DEMO_WEIGHTS and not Path(folder).is_dir():
            raise click.UsageError(f"--model {name}={folder}: there is no such folder")
    for module in ("torch", "open_clip"):
        check_installed(module, "worker")
    with needs_extra("worker"):
        demo_weights: Path = worker_part("demo-weights")
    with needs_extra("local"):
        from maskscore.devstack import LocalServices, start_worker, write_for_owner
        from maskscore.processes import enable_interrupts
    enable_interrupts()
    demo = weights is None
    console = new_console(stderr=True)
    stop = threading.Event()
    if not console.is_terminal:
        click.echo("maskscore: starting Redis, S3 and a worker ...", err=True)
    with ExitStack() as stack:
        with console.status("Starting Redis, S3 and a worker ..."):
            services = stack.enter_context(LocalServices(directory, same_address=directory is not None))
            for bucket in buckets:
                services.create_bucket(bucket)
            environment = {**services.environment(), "MASKSCORE_BUCKETS": "*"}
            worker_environment = {
                **environment,
                "MASKSCORE_WEIGHTS": str((weights or demo_weights).absolute()),
                "MASKSCORE_MODEL_NAME": DEFAULT_MODEL_NAME,
                "MASKSCORE_PROMPTS": "demo" if demo else "default",
                "MASKSCORE_RESULT_BUCKETS": "*",
                "MASKSCORE_FILE_ROOTS": str(Path.cwd()),
                "MASKSCORE_RESULT_ROOTS": str(Path.cwd()),
                "MASKSCORE_DEVICE": device,
            }
            workers = [stack.enter_context(start_worker(worker_environment, directory and directory / "worker"))]
            for name, folder in folders.items():
                path = Path(folder) if Path(folder).is_dir() else demo_weights
                named = {"MASKSCORE_MODEL_NAME": name, "MASKSCORE_WEIGHTS": str(path.absolute())}
                worker = start_worker({**worker_environment, **named}, directory and directory / f"worker-{name}")
                workers.append(stack.enter_context(worker))
        exports = "".join(f"export {name}={shlex.quote(environment[name])}\n" for name in _EXPORTED)
        env_file = services.directory.absolute() / _ENV_FILE
        write_for_owner(env_file, exports)
        stack.callback(_say_what_is_left, directory)
        click.echo(exports, nl=False)
        console.print(_hint(buckets, env_file, directory, list(folders), demo=demo), soft_wrap=True)
        while all(worker.alive() for worker in workers):
            stop.wait(0.5)
        ended = next(worker for worker in workers if not worker.alive())
        click.echo(f"maskscore: the worker has ended by itself; its log ends:\n{ended.log_tail()}", err=True)
    sys.exit(Exit.NOT_SUCCEEDED)


def _say_what_is_left(directory: Path | None) -> None:
    if directory is None:
        text = "stopping; jobs, results and objects are removed (--dir DIR keeps them)"
    else:
        text = f"stopping; jobs, results and objects are kept in {directory}, and --dir {directory} goes on with them"
    click.echo(f"maskscore: {text}", err=True)


def _hint(buckets: tuple[str, ...], env_file: Path, directory: Path | None, models: list[str], *, demo: bool) -> str:
    lines = [
        "",
        "Running. Paste the lines above into another terminal, or there:",
        "",
        f"    source {shlex.quote(str(env_file))}",
        "",
        f"There are buckets ({', '.join(buckets)}), and files in this folder may be read as file://, and `run -o` "
        "may write to it. Try:",
        "",
        f"    maskscore submit --image photo.jpg --masks masks.json{' --prompts demo' if demo else ''} --wait",
        "",
    ]
    if models:
        lines += [f"Further models, for --model: {', '.join(models)}.", ""]
    if demo:
        lines += [
            "The weights are the small demo model: it knows drawn shapes and says nothing about photos.",
            "`maskscore weights pull DIR` fetches real ones, `maskscore up --weights DIR` uses them.",
            "",
        ]
    after = "removes jobs, results and objects" if directory is None else "keeps jobs, results and objects in --dir"
    return "\n".join([*lines, f"Ctrl-C stops everything, and {after}."])
