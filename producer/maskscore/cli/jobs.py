"""``status``, ``wait``, ``results`` and ``cancel``: what can be done with jobs that were submitted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from maskscore.cli.exits import Exit
from maskscore.cli.output import print_results, print_statuses, read_job_ids, shown_progress
from maskscore.cli.unscored import Unscored
from maskscore.client import Client
from maskscore.result import JobResult, JobState

__all__ = ["cancel_command", "results_command", "status_command", "wait_command", "wait_for"]

Command = Callable[..., Any]


def _ids_and_json(command: Command) -> Command:
    json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
    return click.argument("job_ids", nargs=-1, required=True, metavar="JOB_ID...")(json_option(command))


def wait_for(client: Client, ids: list[str], timeout: float | None) -> list[JobResult]:
    """Wait for the jobs, with a bar, and return the results in the order of the ids."""
    handles = [client.handle(job_id) for job_id in ids]
    ended = {
        result.job_id: result
        for result in shown_progress(client.as_completed(handles, timeout=timeout), len(ids), client=client)
    }
    return [ended[job_id] for job_id in ids]


@click.command("status")
@_ids_and_json
def status_command(job_ids: tuple[str, ...], as_json: bool) -> None:
    """Say where jobs are: queued, running, succeeded, failed, cancelled or expired. `-` reads ids from stdin."""
    with Client() as client:
        print_statuses(client.statuses(read_job_ids(job_ids)), as_json=as_json)


@click.command("wait")
@_ids_and_json
@click.option("--timeout", type=float, help="Seconds to wait at most; the jobs go on after that.")
def wait_command(job_ids: tuple[str, ...], as_json: bool, timeout: float | None) -> None:
    """Wait until jobs have ended, and say how. Exits with 1 if one has no result, or no mask of it was scored."""
    with Client() as client:
        ids = read_job_ids(job_ids)
        unscored = Unscored()
        for _ in unscored.of(wait_for(client, ids, timeout)):
            pass
        statuses = client.statuses(ids)
        print_statuses(statuses, as_json=as_json)
    unscored.say()
    if unscored or any(status.state is not JobState.SUCCEEDED for status in statuses):
        sys.exit(Exit.NOT_SUCCEEDED)


@click.command("results")
@_ids_and_json
def results_command(job_ids: tuple[str, ...], as_json: bool) -> None:
    """Print the scores of jobs that have ended. Exits with 1 if one has no result, or no mask of it was scored."""
    with Client() as client:
        results = [client.get(job_id) for job_id in read_job_ids(job_ids)]
    unscored = Unscored()
    print_results(unscored.of(results), as_json=as_json)
    unscored.say()
    if unscored or any(result.state is not JobState.SUCCEEDED for result in results):
        sys.exit(Exit.NOT_SUCCEEDED)


@click.command("cancel")
@_ids_and_json
def cancel_command(job_ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel jobs: a queued one never runs, a running one stops at its next step, an ended one stays as it is."""
    with Client() as client:
        ids = read_job_ids(job_ids)
        for job_id in ids:
            client.cancel(job_id)
        print_statuses(client.statuses(ids), as_json=as_json)
