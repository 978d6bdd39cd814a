"""``weights pull`` and ``weights check``."""

from __future__ import annotations

from pathlib import Path

import click

from maskscore.cli.optional_dependencies import needs_extra
from maskscore.worker_entry_points import worker_part

__all__ = ["weights_command"]

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.group("weights")
def weights_command() -> None:
    """Download model weights, and check a folder of weights."""


@weights_command.command("pull")
@click.argument("folder", type=_FOLDER)
@click.option("--repo", help="Repository on the Hugging Face hub.  [default: ViT-B-32, laion2b_s34b_b79k]")
@click.option("--revision", help="Branch, tag or commit of it.")
def pull_command(folder: Path, repo: str | None, revision: str | None) -> None:
    """Fetch weights from the Hugging Face hub into FOLDER; a download that was cut off is gone on with."""
    with needs_extra("worker"):
        pull = worker_part("pull-weights")
    digest = pull(folder, repo=repo, revision=revision)
    click.echo(f"{folder}: {digest}, as the hub says")


@weights_command.command("check")
@click.argument("folder", type=_FOLDER)
@click.option("--model", default="ViT-B-32", show_default=True, help="Architecture, where the folder names none.")
def check_command(folder: Path, model: str) -> None:
    """Load FOLDER's weights as a worker would and say what they are."""
    with needs_extra("worker"):
        check = worker_part("check-weights")
    report = check(folder, architecture=model)
    rows = {
        "file": report.file,
        "size": f"{report.size:,} bytes",
        "digest": report.digest,
        "architecture": report.architecture,
        **{name.replace("_", " "): value for name, value in report.details.items()},
    }
    for name, value in rows.items():
        click.echo(f"{name:<18} {f'{value:,}' if isinstance(value, int) else value}")
    click.echo("The weights fit.")
