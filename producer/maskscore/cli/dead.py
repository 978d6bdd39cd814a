"""``dead``: jobs that were given up although their input may be fine."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from maskscore.cli.batch_or_job import read_job_ids
from maskscore.cli.exit_codes import Exit
from maskscore.cli.job_tables import table
from maskscore.cli.terminal import new_console
from maskscore.client import Client
from maskscore.errors import JobNotFound
from maskscore.ledger import DeadLetter
from maskscore.schema import JobState
from maskscore.text import one_line

__all__ = ["dead_command"]

_json = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
_ids = click.argument("job_ids", nargs=-1, metavar="JOB_ID...")
_all = click.option("--all", "every", is_flag=True, help="All dead letters.")


@click.group("dead")
def dead_command() -> None:
    """List, show, requeue and drop dead letters.

    Dead letters are jobs that were given up although their input may be fine: they ended their worker time and again
    (poisoned), or met a transient fault in every retry. They are kept, with their documents and the reasons, until they
    are requeued or dropped.
    """


@dead_command.command("list")
@_json
@click.option("--limit", default=1000, show_default=True, help="Maximum number of dead letters shown.")
def _list(as_json: bool, limit: int) -> None:
    """List dead letters, the latest first."""
    with Client() as client:
        letters = client.dead_letters(limit=limit)
    if as_json:
        for letter in letters:
            click.echo(json.dumps(_document(letter)))
        return
    if not letters:
        click.echo("no dead letters", err=True)
        return
    rows = table("job", "code", "attempts", "retries", "died")
    for letter in letters:
        status = letter.status
        code = status.error.code if status.error else ""
        died_at = letter.died_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        rows.add_row(status.job_id, code, str(status.attempts), str(status.retries), died_at)
    new_console().print(rows)


@dead_command.command("show")
@click.argument("job_id")
@_json
def _show(job_id: str, as_json: bool) -> None:
    """Show a dead letter: its error, the failure of every attempt, and the job document."""
    with Client() as client:
        letter = client.dead_letter(job_id)
        document = client.job(job_id).model_dump(mode="json", exclude_defaults=True)
    if as_json:
        click.echo(json.dumps({**_document(letter), "document": document}))
        return
    status = letter.status
    if status.error:
        click.echo(one_line(f"{job_id}: {status.error.code}: {status.error.message}"))
    for reason in letter.reasons:
        at = reason.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        click.echo(one_line(f"{at}  {reason.worker or ''}  {reason.code}: {reason.message}"))
    if isinstance(document.get("masks"), list):
        document["masks"] = f"{len(document['masks'])} inline masks (--json shows them)"
    click.echo(json.dumps(document, indent=2))


@dead_command.command("requeue")
@_ids
@_all
def _requeue(job_ids: tuple[str, ...], every: bool) -> None:
    """Queue dead letters again.

    They start with all their attempts and retries again. A job that killed workers runs in a worker process without
    other jobs.
    """
    with Client() as client:
        for job_id in _chosen(client, job_ids, every):
            client.dead_letter(job_id)
            if client.requeue(job_id) is JobState.QUEUED:
                click.echo(f"{job_id} is queued again")


@dead_command.command("drop")
@_ids
@_all
def _drop(job_ids: tuple[str, ...], every: bool) -> None:
    """Remove dead letters from the list.

    The jobs stay failed, and are deleted after MASKSCORE_RESULT_TTL_S like other failed jobs.
    """
    missing = False
    with Client() as client:
        for job_id in _chosen(client, job_ids, every):
            dropped = client.drop_dead_letter(job_id)
            missing |= not dropped
            click.echo(f"{job_id} is {'dropped' if dropped else 'no dead letter'}", err=not dropped)
    if missing:
        sys.exit(Exit.NOT_FOUND)


def _chosen(client: Client, job_ids: tuple[str, ...], every: bool) -> list[str]:
    if every == bool(job_ids):
        raise click.UsageError("give either JOB_IDs (`-` reads them from stdin) or --all")
    if not every:
        return read_job_ids(job_ids)
    letters = client.dead_letters(limit=1_000_000)
    if not letters:
        raise JobNotFound("There are no dead letters.")
    return [letter.status.job_id for letter in letters]


def _document(letter: DeadLetter) -> dict[str, Any]:
    status = letter.status
    return {
        "job_id": status.job_id,
        "batch_id": status.batch_id,
        "error": status.error.model_dump() if status.error else None,
        "attempts": status.attempts,
        "retries": status.retries,
        "died_at": letter.died_at.isoformat(),
        "reasons": [
            {"at": reason.at.isoformat(), "worker": reason.worker, "code": reason.code, "message": reason.message}
            for reason in letter.reasons
        ],
    }
