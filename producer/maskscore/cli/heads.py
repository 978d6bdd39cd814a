"""``heads``: the heads of MASKSCORE_HEADS_DIR, and files of heads."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import click

from maskscore.cli.batch_or_job import job_ids_of, parts_named
from maskscore.cli.exit_codes import Exit
from maskscore.cli.head_counts import count_kept
from maskscore.cli.job_tables import table
from maskscore.cli.local_heads import local_head
from maskscore.cli.terminal import new_console
from maskscore.client import Client
from maskscore.errors import HeadInvalid
from maskscore.heads import head_files, read_head
from maskscore.schema import Head
from maskscore.settings import WorkerSettings, load_settings
from maskscore.text import counted

__all__ = ["heads_command"]


@click.group("heads")
def heads_command() -> None:
    """List, show and check fitted heads."""


@heads_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def _list(as_json: bool) -> None:
    """List the heads of MASKSCORE_HEADS_DIR, which jobs and exports may name."""
    folder = load_settings(WorkerSettings).heads_dir
    rows = table("head", "kind", "precision", "view", "weights", "fitted")
    broken = []
    for name, path in head_files(folder):
        try:
            head = read_head(path)
        except HeadInvalid as error:
            broken.append(str(error))
            continue
        if as_json:
            click.echo(json.dumps({"file": str(path), **_about(head), "name": name}))
        precision = "" if head.precision is None else f"{head.precision:g}"
        date = "" if head.created_at is None else f"{head.created_at:%Y-%m-%d}"
        rows.add_row(name, head.kind, precision, head.views, head.weights_digest[:19], date)
    if not as_json:
        if rows.row_count:
            new_console().print(rows)
        else:
            click.echo(f"maskscore: no heads in {folder or 'MASKSCORE_HEADS_DIR, which is not set'}", err=True)
    for sentence in broken:
        click.echo(f"maskscore: {sentence}", err=True)
    if broken:
        sys.exit(Exit.NOT_SUCCEEDED)


@heads_command.command("show")
@click.argument("head", metavar="NAME|FILE.json")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def _show(head: str, as_json: bool) -> None:
    """Show what a head is, what it holds for, and how well it did."""
    shown = local_head(head).head
    about = _about(shown)
    if as_json:
        click.echo(json.dumps(about))
        return
    console = new_console()
    for name, value in about.items():
        if name == "metrics":
            for metric, estimate in value.items():
                interval = f"95 % interval by image: {estimate['low']:.3f} to {estimate['high']:.3f}"
                console.print(f"{metric:>16}  {estimate['value']:.3f} ({interval})")
        elif name == "counts":
            console.print(f"{'judgements':>16}  " + ", ".join(f"{count:,} {what}" for what, count in value.items()))
        elif value not in (None, [], ()):
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            # `precision` alone is one of the metrics.
            shown_name = "asked precision" if name == "precision" else name
            console.print(f"{shown_name:>16}  {text}", soft_wrap=True)


@heads_command.command("check")
@click.argument("head", metavar="NAME|FILE.json")
@click.argument("names", nargs=-1, metavar="[BATCH|JOB|PARTS]...")
def _check(head: str, names: tuple[str, ...]) -> None:
    """Check that a head can be read, and that it holds for the masks of batches, jobs or parts of shards.

    PARTS are a folder of parts of shards, s3://bucket/prefix/ or local.

    Exit code 1: it does not hold for some of them, or jobs or images have no result and cannot be checked.
    """
    application = local_head(head)
    name = application.head.name
    click.echo(f"maskscore: {name}: a valid head of the kind {application.head.kind}", err=True)
    if not names:
        return
    with Client() as client:
        parts = parts_named(client, names)
        jobs = job_ids_of(client, [name for name in names if name not in parts])
        counts = count_kept(client, application, jobs, [one.place for one in parts.values()])
        counts.without_result += sum((one.codes for one in parts.values()), Counter())
    click.echo(f"{counted(counts.decided, 'mask')} can be decided, {counts.kept:,} of them kept")
    if counts.without_result:
        plural = "jobs or images" if parts else "jobs"
        missing = counted(counts.without_result.total(), "job or image" if parts else "job", plural)
        click.echo(f"maskscore: {missing} without a result, not checked", err=True)
    if counts.mismatches:
        place, why = next(iter(counts.mismatches.items()))
        more = len(counts.mismatches) - 1
        others = f" and {counted(more, 'other')}" if more else ""
        masks = counted(counts.undecided, "mask")
        click.echo(f"maskscore: does not hold for {masks}, those of {place}{others}: {why}", err=True)
    if counts.mismatches or counts.without_result or not counts.decided:
        sys.exit(Exit.NOT_SUCCEEDED)


def _about(head: Head) -> dict[str, Any]:
    fields = head.model_dump(mode="json", exclude={"model"})
    model = head.model.model_dump(mode="json", exclude={"weights", "biases", "scores", "probabilities"})
    return {"name": head.name, "digest": head.digest, **model, **fields}
