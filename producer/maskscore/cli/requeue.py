"""``requeue``: jobs that ended without a result run again, under their ids."""

from __future__ import annotations

import json
import sys

import click

from maskscore.cli.batch_or_job import find_batch, read_job_ids
from maskscore.cli.exit_codes import Exit
from maskscore.client import Client
from maskscore.errors import FailureCode
from maskscore.text import counted

__all__ = ["requeue_command"]


@click.command("requeue")
@click.argument("names", nargs=-1, required=True, metavar="BATCH|JOB...")
@click.option(
    "--code",
    "codes",
    multiple=True,
    type=click.Choice([str(code) for code in FailureCode]),
    metavar="CODE",
    help="Only jobs that ended with this code (docs/reference/codes.md), such as prompt_set_unknown; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def requeue_command(names: tuple[str, ...], codes: tuple[str, ...], as_json: bool) -> None:
    """Run failed, cancelled or expired jobs again, under the same ids.

    Each requeued job starts with all its attempts and retries again. Remove the cause of the failures before.

    Each BATCH|JOB is the id of a batch or of a job; `-` reads ids from stdin. Jobs of a batch that have a
    result are not requeued. Exits with 1 if a job that was named is not queued again.
    """
    stayed = 0
    with Client() as client:
        # All are looked up before the first is queued again: a misspelt name changes nothing.
        found = [(name, find_batch(client, name)) for name in read_job_ids(names)]
        for name, batch in found:
            if batch is not None:
                queued = batch.requeue(codes=codes)
                total = len(batch)
                text = f"batch {name}: {queued:,} of {counted(total, 'job')} queued again"
                document = {"batch_id": name, "requeued": queued, "total": total}
            else:
                again = bool(client.requeue_many([name], codes=codes))
                status = client.status(name)
                why = f", {status.error.code}" if status.error else ""
                text = f"{name} is queued again" if again else f"{name} stays as it is: {status.state}{why}"
                document = {"job_id": name, "requeued": again, "state": str(status.state)}
                stayed += not again
            click.echo(json.dumps(document) if as_json else text)
    if stayed:
        sys.exit(Exit.NOT_SUCCEEDED)
