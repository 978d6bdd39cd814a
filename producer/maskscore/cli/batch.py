"""``batch``: what can be done with all jobs of a batch."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator

import click

from maskscore.cli.exit_codes import Exit
from maskscore.cli.job_tables import print_counts, print_results, table
from maskscore.cli.jobs_without_scores import JobsWithoutScores
from maskscore.cli.progress import shown_progress
from maskscore.cli.terminal import new_console
from maskscore.cli.worker_warnings import warn_without_worker
from maskscore.client import Client
from maskscore.schema import JobResult

__all__ = ["batch_command"]

_batch_id = click.argument("batch_id")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")


@click.group("batch")
def batch_command() -> None:
    """List batches, and follow or cancel one of them.

    A batch is what was submitted together; `maskscore submit` prints its id on stderr.
    """


@batch_command.command("list")
@_json
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Maximum number of batches, the latest first.",
)
def _list(as_json: bool, limit: int) -> None:
    """List the batches that are kept, the latest first, with their jobs by state."""
    with Client() as client:
        batches = client.batches()
    rows = table("batch", "jobs", "states", "submitted")
    for batch in batches[:limit]:
        values = dataclasses.asdict(batch.counts)
        at = batch.submitted_at
        if as_json:
            about = {"batch_id": batch.batch_id, **values, "total": batch.counts.total}
            click.echo(json.dumps({**about, "submitted_at": at.isoformat() if at else None}))
        states = ", ".join(f"{count:,} {state}" for state, count in values.items() if count)
        submitted = at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""
        rows.add_row(batch.batch_id, f"{batch.counts.total:,}", states, submitted)
    if not as_json and batches:
        new_console().print(rows)
    if not batches:
        click.echo("maskscore: no batches", err=True)
    if len(batches) > limit:
        click.echo(f"maskscore: and {len(batches) - limit:,} older ones; --limit shows more", err=True)


@batch_command.command("show")
@_batch_id
@_json
def _show(batch_id: str, as_json: bool) -> None:
    """Count the jobs by their state."""
    with Client() as client:
        print_counts(batch_id, client.batch(batch_id).counts(), as_json=as_json)


@batch_command.command("wait")
@_batch_id
@_json
@click.option("--timeout", type=float, help="Seconds to wait at most; the jobs go on after that.")
def _wait(batch_id: str, as_json: bool, timeout: float | None) -> None:
    """Wait until all jobs have ended. Exits with 1 if one has no result, or no mask of it was scored."""
    without_scores = JobsWithoutScores()
    with Client() as client:
        batch = client.batch(batch_id)
        ended = shown_progress(batch.as_completed(timeout), len(batch), client=client, of=batch.job_ids())
        for _ in without_scores.count_in(ended):
            pass
        counts = batch.counts()
        print_counts(batch_id, counts, as_json=as_json)
    without_scores.print_examples()
    if without_scores or counts.succeeded < counts.total:
        sys.exit(Exit.NOT_SUCCEEDED)


@batch_command.command("results")
@_batch_id
@_json
@click.option("--timeout", type=float, help="Seconds to wait at most; the jobs go on after that.")
@click.option("--reader", help="Continue where the reader of this name stopped.")
def _results(batch_id: str, as_json: bool, timeout: float | None, reader: str | None) -> None:
    """Print results as the jobs end, until all have. Exits with 1 if one has no result, or no mask of it was scored."""
    failed = False
    without_scores = JobsWithoutScores()

    def seen(results: Iterator[JobResult]) -> Iterator[JobResult]:
        nonlocal failed
        for result in results:
            failed |= result.error is not None
            yield result

    with Client() as client:
        batch = client.batch(batch_id)
        results = batch.as_completed(timeout, reader=reader)

        def say(sentence: str) -> None:
            click.echo(f"maskscore: {sentence}", err=True)

        with warn_without_worker(client, say, batch.job_ids()):
            print_results(seen(without_scores.count_in(results)), as_json=as_json)
    without_scores.print_examples()
    if failed or without_scores:
        sys.exit(Exit.NOT_SUCCEEDED)


@batch_command.command("cancel")
@_batch_id
@_json
def _cancel(batch_id: str, as_json: bool) -> None:
    """Cancel every job that has not ended: queued ones never run, running ones stop at their next step."""
    with Client() as client:
        print_counts(batch_id, client.batch(batch_id).cancel(), as_json=as_json)
