"""``report``: the results of jobs as a page to look at."""

from __future__ import annotations

from pathlib import Path

import click

from maskscore.cli.extras import needs_extra
from maskscore.cli.output import read_job_ids
from maskscore.client import Client

__all__ = ["report_command"]


@click.command("report")
@click.argument("job_ids", nargs=-1, required=True, metavar="JOB_ID...")
@click.option(
    "-o",
    "--output",
    default=Path("report.html"),
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="HTML file to write.",
)
@click.option("--title", default="maskscore report", show_default=True)
def report_command(job_ids: tuple[str, ...], output: Path, title: str) -> None:
    """Write the results of ended jobs as one self-contained HTML file: masks over images, scores, crops."""
    with needs_extra("report"):
        from maskscore.report import collect, write_report
    with Client() as client:
        write_report(output, collect(client, read_job_ids(job_ids)), title=title)
    click.echo(str(output.absolute()))
