"""``python -m maskscore_worker.demo``: runs the whole service once on this machine."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from maskscore.errors import MaskscoreError
from maskscore.processes import enable_interrupts
from maskscore.settings import PREFIX
from maskscore_worker.demo.run import DEMO_WEIGHTS, run_demo


@click.command()
@click.option(
    "--weights",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="MASKSCORE_WEIGHTS",
    help="Folder of real weights: scores real photos then. Without it, the small demo model scores drawn scenes.",
)
@click.option("--images", default=6, show_default=True, type=click.IntRange(1, 500), help="How many images to score.")
@click.option(
    "--report",
    default=Path("build/demo-report.html"),
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the HTML report goes.",
)
def main(weights: Path | None, images: int, report: Path) -> None:
    """Score images end to end with a private Redis, a private S3 server and one worker, and stop them all."""
    console = Console(highlight=False)
    # Settings of another deployment must not reach the demo's services and worker.
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    enable_interrupts()
    try:
        run_demo(console, weights=weights or DEMO_WEIGHTS, images=images, report=report)
    except KeyboardInterrupt:
        console.print("[bold]demo: interrupted; everything it started has been stopped[/bold]")
        sys.exit(130)
    except MaskscoreError as error:
        console.print(f"[bold red]demo: {error.code}:[/bold red] {error}", markup=True)
        sys.exit(1)


if __name__ == "__main__":
    # Click would turn Ctrl-C into its own "Aborted!".
    main(standalone_mode=True)
