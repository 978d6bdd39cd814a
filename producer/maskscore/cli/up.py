"""``up``: a whole deployment on this machine, in the foreground."""

from __future__ import annotations

import shlex
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import click

from maskscore.cli.exits import Exit
from maskscore.cli.extras import needs_extra, require_module
from maskscore.cli.terminal import new_console
from maskscore.worker_half import worker_part

__all__ = ["up_command"]

# What a client needs; the rest of the services' environment guards against settings that a new shell does not have.
_EXPORTED = (
    "MASKSCORE_REDIS_URL",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
)


@click.command("up")
@click.option(
    "--weights",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Weights folder.  [default: the small demo model, which knows drawn shapes only]",
)
@click.option("--bucket", default="photos", show_default=True, help="Bucket to create.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the data is kept.  [default: a temporary folder, removed at the end]",
)
@click.option("--device", default="auto", show_default=True, help="Device of the worker.")
def up_command(weights: Path | None, bucket: str, directory: Path | None, device: str) -> None:
    """Run Redis, S3 and one worker in the foreground, and print the variables to export elsewhere.

    Ctrl-C stops all of them; nothing is left behind unless --dir was given.
    """
    for module in ("torch", "open_clip"):
        require_module(module, "worker")
    with needs_extra("worker"):
        demo_weights: Path = worker_part("demo-weights")
    with needs_extra("local"):
        from maskscore.local import LocalServices
        from maskscore.local.signals import hear_interrupts
        from maskscore.local.worker import start_worker
    hear_interrupts()
    demo = weights is None
    console = new_console(stderr=True)
    stop = threading.Event()
    with ExitStack() as stack:
        with console.status("Starting Redis, S3 and a worker ..."):
            services = stack.enter_context(LocalServices(directory))
            services.create_bucket(bucket)
            environment = services.environment()
            worker_environment = {
                **environment,
                "MASKSCORE_WEIGHTS": str((weights or demo_weights).absolute()),
                "MASKSCORE_PROMPTS": "demo" if demo else "default",
                "MASKSCORE_BUCKETS": "*",
                "MASKSCORE_RESULT_BUCKETS": "*",
                "MASKSCORE_FILE_ROOTS": str(Path.cwd()),
                "MASKSCORE_DEVICE": device,
            }
            worker = stack.enter_context(start_worker(worker_environment, directory and directory / "worker"))
        for name in _EXPORTED:
            click.echo(f"export {name}={shlex.quote(environment[name])}")
        console.print(_hint(bucket, demo=demo), soft_wrap=True)
        while worker.alive():
            stop.wait(0.5)
        click.echo(f"maskscore: the worker has ended by itself; its log ends:\n{worker.log_tail()}", err=True)
    sys.exit(Exit.NOT_SUCCEEDED)


def _hint(bucket: str, *, demo: bool) -> str:
    lines = [
        "",
        f"Running. Paste the lines above into another terminal. The bucket {bucket!r} is there, and files in",
        "this folder may be read as file://. Try:",
        "",
        f"    maskscore submit --image photo.jpg --masks masks.json{' --prompts demo' if demo else ''} --wait",
        "",
    ]
    if demo:
        lines += [
            "The weights are the small demo model: it knows drawn shapes and says nothing about photos.",
            "`maskscore weights pull DIR` fetches real ones, `maskscore up --weights DIR` uses them.",
            "",
        ]
    return "\n".join([*lines, "Ctrl-C stops everything."])
