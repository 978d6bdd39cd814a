"""``submit``: jobs from documents, or one job from options."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from maskscore.cli.exit_codes import Exit
from maskscore.cli.job_tables import print_results
from maskscore.cli.jobs_without_scores import JobsWithoutScores
from maskscore.cli.progress import wait_for
from maskscore.cli.shared_options import job_options, scoring_options, taken_job_fields, taken_scoring
from maskscore.cli.worker_warnings import warn_of_workers
from maskscore.client import Client, save_categories, with_content_id
from maskscore.dataset import job_of_image, read_jobs
from maskscore.errors import QueueFull
from maskscore.formats import FORMATS, read_categories
from maskscore.schema import Job, JobState, Shard
from maskscore.text import counted

__all__ = ["job_from_options", "submit_command"]


@click.command("submit")
@click.argument("files", nargs=-1, metavar="[FILE...]")
@click.option("--image", help="s3:// or file:// URI, or a path, of one job's image.")
@click.option("--masks", help="URI of its masks, or the path of a file that is read here and sent along.")
@click.option(
    "--format",
    "format_",
    metavar="NAME",
    type=click.Choice([name for name, known in FORMATS.items() if known.scope != "folder"]),
    help="Format of the masks (docs/reference/formats).  [default: detected]",
)
@scoring_options
@job_options
@click.option("--result-uri", help="s3://bucket/prefix/ or s3://bucket/key.json for the result.")
@click.option("--job-id", help="Id of the job; submitting the same again is the same job.")
@click.option("--content-id", is_flag=True, help="Derive job ids from the content, so that the same work is done once.")
@click.option("--batch-id", help="Id of the batch; running again under it submits what is missing.")
@click.option("--retry-failed", is_flag=True, help="Run jobs again that were submitted before and have no result.")
@click.option("--wait", "wait_", is_flag=True, help="Wait for the results and print them.")
@click.option("--timeout", type=float, help="With --wait: seconds to wait at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def submit_command(
    files: tuple[str, ...],
    image: str | None,
    masks: str | None,
    format_: str | None,
    content_id: bool,
    batch_id: str | None,
    retry_failed: bool,
    wait_: bool,
    timeout: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Submit jobs and print their ids, one per line.

    Either FILEs with the document of a job or a shard each, or with one per line (JSON Lines; `-` is stdin), or one job
    from --image, --masks and the options. A file is read to its end before any of its jobs is submitted; stdin is
    submitted as it comes.
    """
    if bool(files) == bool(image):
        raise click.UsageError("give either FILEs with job documents, or --image and --masks")
    if files and any(value is not None for value in (masks, format_, *options.values())):
        raise click.UsageError("with FILEs, the options stand in the documents")
    with Client() as client:
        jobs = read_jobs(files) if files else iter([job_from_options(image, masks, options, format_=format_)])
        batch_id = batch_id or uuid.uuid4().hex
        ids: list[str] = []
        for job_id in _submit(client, jobs, batch_id, content_id, retry_failed):
            ids.append(job_id)
            if not wait_:
                click.echo(json.dumps({"job_id": job_id, "batch_id": batch_id}) if as_json else job_id)
        if masks is not None and "://" not in masks:
            save_categories(client.batch(batch_id), read_categories(Path(masks), format=format_))
        if files:
            click.echo(f"maskscore: {counted(len(ids), 'job')} submitted, batch {batch_id}", err=True)
        if not wait_:
            return
        results = wait_for(client, ids, timeout)
    without_scores = JobsWithoutScores()
    print_results(without_scores.count_in(results), as_json=as_json)
    without_scores.print_examples()
    if without_scores or any(result.state is not JobState.SUCCEEDED for result in results):
        sys.exit(Exit.NOT_SUCCEEDED)


def _submit(
    client: Client, jobs: Iterator[Job | Shard], batch_id: str, content_id: bool, retry_failed: bool
) -> Iterator[str]:
    seen: set[str | None] = set()
    while chunk := list(islice(jobs, 200)):
        for model, options in {job.options.model: job.options for job in reversed(chunk)}.items():
            if model not in seen:
                seen.add(model)
                warn_of_workers(client, model, options.prompts)
        if content_id:
            chunk = [with_content_id(job, client.objects) if isinstance(job, Job) else job for job in chunk]
        try:
            client.submit_many(chunk, batch_id=batch_id, retry_failed=retry_failed)
        except QueueFull as full:
            click.echo(f"maskscore: waiting for room in the queue: {full}", err=True)
            client.submit_many(chunk, batch_id=batch_id, wait_for_room=True, retry_failed=retry_failed)
        yield from (job.job_id for job in chunk)


def job_from_options(
    image: str | None, masks: str | None, options: dict[str, Any], *, format_: str | None = None
) -> Job:
    """Return the job of an image and its masks, each a URI or a path, with a job's and its scoring's ``options``.

    Those that are ``None`` are ignored; ``format_`` is the layout of the masks. Entries that are no masks are printed
    on stderr. Raises as :func:`~maskscore.dataset.job_of_image` does, and :class:`click.UsageError` where the image or
    the masks are missing.
    """
    if image is None or masks is None:
        raise click.UsageError("one job needs both --image and --masks")
    options = dict(options)
    scoring = taken_scoring(options)
    fields = {name: value for name, value in {**taken_job_fields(options), **options}.items() if value is not None}
    job, read = job_of_image(image, masks, scoring, fields, format=format_)
    for doubt in read.doubts if read else ():
        click.echo(f"maskscore: {masks}: {doubt}", err=True)
    for reason in read.left_out if read else ():
        click.echo(f"maskscore: left out: {reason}", err=True)
    return job
