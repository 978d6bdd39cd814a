"""``status``, ``wait``, ``results`` and ``cancel``: what can be done with jobs and batches that were submitted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import click

from maskscore.cli.batch_or_job import batches_and_jobs, read_job_ids
from maskscore.cli.exit_codes import Exit
from maskscore.cli.job_tables import print_counts, print_results, print_statuses
from maskscore.cli.jobs_without_scores import JobsWithoutScores
from maskscore.cli.progress import shown_progress, wait_for
from maskscore.client import Batch, Client
from maskscore.errors import WaitTimeout
from maskscore.schema import JobResult, JobState
from maskscore.text import counted

__all__ = ["cancel_command", "results_command", "status_command", "wait_command"]

Command = Callable[..., Any]


def _names_and_json(command: Command) -> Command:
    json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
    return click.argument("names", nargs=-1, required=True, metavar="BATCH|JOB...")(json_option(command))


@click.command("status")
@_names_and_json
def status_command(names: tuple[str, ...], as_json: bool) -> None:
    """Print the state of jobs, and the counts of batches.

    A job is queued, running, succeeded, failed, cancelled or expired.

    `-` reads ids from stdin.
    """
    with Client() as client:
        batches, ids = batches_and_jobs(client, read_job_ids(names))
        _print(client, batches, ids, as_json=as_json)


@click.command("wait")
@_names_and_json
@click.option("--timeout", type=float, help="Seconds to wait at most; the jobs go on after that.")
def wait_command(names: tuple[str, ...], as_json: bool, timeout: float | None) -> None:
    """Wait until jobs have ended, and print their states.

    Exits with 1 if a job has no result, or none of its masks was scored.
    """
    without_scores, failed = JobsWithoutScores(), False
    deadline = None if timeout is None else time.monotonic() + timeout
    with Client() as client:
        batches, ids = batches_and_jobs(client, read_job_ids(names))
        waits: list[Iterable[JobResult]] = [_of_batch(client, batch, deadline) for batch in batches]
        if ids:
            waits.append(wait_for(client, ids, timeout))
        for result in without_scores.count_in(chain.from_iterable(waits)):
            failed |= result.state is not JobState.SUCCEEDED
        _print(client, batches, ids, as_json=as_json)
    without_scores.print_examples()
    if without_scores or failed:
        sys.exit(Exit.NOT_SUCCEEDED)


@click.command("results")
@_names_and_json
def results_command(names: tuple[str, ...], as_json: bool) -> None:
    """Print the scores of jobs that have ended. Exits with 1 if one has no result, or no mask of it was scored.

    The results of a batch are printed in the order in which its jobs ended. The number of its unfinished jobs is
    printed on stderr.
    """
    without_scores, failed = JobsWithoutScores(), False

    def seen(results: Iterable[JobResult]) -> Iterator[JobResult]:
        nonlocal failed
        for result in without_scores.count_in(results):
            failed |= result.state is not JobState.SUCCEEDED
            yield result

    with Client() as client:
        batches, ids = batches_and_jobs(client, read_job_ids(names))
        # Read before the first is printed: a job that is not there, or has not ended, prints nothing.
        results = [client.get(job_id) for job_id in ids]
        ended = (result for batch in batches for result in _ended(batch))
        print_results(seen(chain(results, ended)), as_json=as_json)
        going = sum(counts.total - counts.ended for counts in (batch.counts() for batch in batches))
    without_scores.print_examples()
    if going:
        click.echo(f"maskscore: not ended yet: {counted(going, 'job')}; `maskscore wait` waits for them", err=True)
    if without_scores or failed or going:
        sys.exit(Exit.NOT_SUCCEEDED)


@click.command("cancel")
@_names_and_json
def cancel_command(names: tuple[str, ...], as_json: bool) -> None:
    """Cancel jobs and batches.

    A queued job never runs, a running one stops at its next step, an ended one stays as it is.
    """
    with Client() as client:
        batches, ids = batches_and_jobs(client, read_job_ids(names))
        # A misspelt id cancels nothing.
        client.statuses(ids)
        for batch in batches:
            batch.cancel()
        client.cancel_many(ids)
        _print(client, batches, ids, as_json=as_json)


def _of_batch(client: Client, batch: Batch, deadline: float | None) -> Iterator[JobResult]:
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    yield from shown_progress(batch.as_completed(left), len(batch), client=client, of=batch.job_ids())


def _ended(batch: Batch) -> Iterator[JobResult]:
    with suppress(WaitTimeout):
        yield from batch.as_completed(timeout=0)


def _print(client: Client, batches: list[Batch], ids: list[str], *, as_json: bool) -> None:
    for batch in batches:
        print_counts(batch.batch_id, batch.counts(), as_json=as_json)
    if ids:
        print_statuses(client.statuses(ids), as_json=as_json)
