"""``submit``: jobs from documents, or one job from options."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import click
from pydantic import ValidationError

from maskscore.cli.exit_codes import Exit
from maskscore.cli.job_tables import print_results
from maskscore.cli.progress import wait_for
from maskscore.cli.shared_options import job_options, scoring_options, taken_job_fields, taken_scoring
from maskscore.cli.unscored_jobs import UnscoredJobs
from maskscore.cli.worker_warnings import warn_of_demo_model
from maskscore.client import Client, image_size, keep_categories, with_content_id
from maskscore.errors import InvalidDocumentError, JobError, NothingToScore, QueueFull
from maskscore.formats import FORMATS, Orphans, UnreadableMask, read_categories, read_masks
from maskscore.schema import Job, JobState, Orientation, explain, parse_job
from maskscore.storage import path_in

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
    help="Layout of the masks; else their content says.",
)
@scoring_options
@job_options
@click.option("--result-uri", help="s3://bucket/prefix/ or s3://bucket/key.json for the result.")
@click.option("--job-id", help="Id of the job; submitting the same again is the same job.")
@click.option("--content-id", is_flag=True, help="Make the ids of the content: the same work is done once.")
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

    Either FILEs with a job document each, or with one per line (JSON Lines; `-` is stdin), or one job from --image,
    --masks and the options. A file is read to its end before any of its jobs is submitted; stdin is submitted as it
    comes.
    """
    if bool(files) == bool(image):
        raise click.UsageError("give either FILEs with job documents, or --image and --masks")
    if files and any(value is not None for value in (masks, format_, *options.values())):
        raise click.UsageError("with FILEs, the options stand in the documents")
    with Client() as client:
        jobs = _from_files(files) if files else iter([job_from_options(image, masks, options, format_=format_)])
        batch_id = batch_id or uuid.uuid4().hex
        ids: list[str] = []
        first, jobs = _peek(jobs)
        if first is not None:
            warn_of_demo_model(client, first.options.prompts)
        for job_id in _submit(client, jobs, batch_id, content_id, retry_failed):
            ids.append(job_id)
            if not wait_:
                click.echo(json.dumps({"job_id": job_id, "batch_id": batch_id}) if as_json else job_id)
        if masks is not None and "://" not in masks:
            keep_categories(client.batch(batch_id), read_categories(Path(masks), format=format_))
        if files:
            click.echo(f"maskscore: {len(ids)} jobs submitted, batch {batch_id}", err=True)
        if not wait_:
            return
        results = wait_for(client, ids, timeout)
    unscored = UnscoredJobs()
    print_results(unscored.count_in(results), as_json=as_json)
    unscored.print_examples()
    if unscored or any(result.state is not JobState.SUCCEEDED for result in results):
        sys.exit(Exit.NOT_SUCCEEDED)


def _submit(client: Client, jobs: Iterator[Job], batch_id: str, content_id: bool, retry_failed: bool) -> Iterator[str]:
    while chunk := list(islice(jobs, 200)):
        if content_id:
            chunk = [with_content_id(job, client.objects) for job in chunk]
        try:
            client.submit_many(chunk, batch_id=batch_id, retry_failed=retry_failed)
        except QueueFull as full:
            click.echo(f"maskscore: waiting for room in the queue: {full}", err=True)
            client.submit_many(chunk, batch_id=batch_id, wait_for_room=True, retry_failed=retry_failed)
        yield from (job.job_id for job in chunk)


def _peek(jobs: Iterator[Job]) -> tuple[Job | None, Iterator[Job]]:
    """Return the first of the jobs, and all of them."""
    first = next(jobs, None)
    return first, jobs if first is None else chain([first], jobs)


def _from_files(files: Iterable[str]) -> Iterator[Job]:
    for name in files:
        try:
            yield from _parsed("standard input", sys.stdin) if name == "-" else _from_file(name)
        except UnicodeDecodeError as error:
            raise InvalidDocumentError(f"{name} holds no job documents: it is not text in UTF-8 ({error}).") from error
        except OSError as error:
            raise InvalidDocumentError(f"{name} cannot be read: {error.strerror or error}.") from error


def _from_file(name: str) -> Iterator[Job]:
    path = Path(name)
    if not path.is_file():
        raise InvalidDocumentError(f"There is no file {name}.")
    whole = path.read_text("utf-8") if path.stat().st_size < 1 << 26 else ""
    if _is_one_document(whole):
        yield _job(whole, name)
        return
    # Twice, so that a bad line at the end does not leave half of the file submitted.
    with path.open(encoding="utf-8") as lines:
        for _ in _parsed(name, lines):
            pass
    with path.open(encoding="utf-8") as lines:
        yield from _parsed(name, lines)


def _is_one_document(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):  # too deep: the error of its first line says so
        return False


def _parsed(name: str, lines: Iterable[str]) -> Iterator[Job]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _job(line, f"{name}, line {number}")


def _job(text: str, place: str) -> Job:
    try:
        return parse_job(text)
    except JobError as error:
        raise InvalidDocumentError(f"{place}: {error}") from error


def job_from_options(
    image: str | None, masks: str | None, options: dict[str, Any], *, format_: str | None = None
) -> Job:
    """Return the job of an image and its masks, each a URI or a path, with a job's and its scoring's ``options``.

    Those that are ``None`` are left out; ``format_`` is the masks' layout. Raises
    :class:`~maskscore.errors.InvalidDocumentError` for what is not valid, and :class:`click.UsageError` where one of
    the two is missing.
    """
    if image is None or masks is None:
        raise click.UsageError("one job needs both --image and --masks")
    options = dict(options)
    scoring = taken_scoring(options)
    given = {name: value for name, value in {**taken_job_fields(options), **options}.items() if value is not None}
    orientation = given.pop("orientation", "auto")
    image_uri = _uri(image)
    document: dict[str, Any] = {
        "image": {"uri": image_uri, "orientation": orientation},
        "masks": {"uri": masks, "format": format_}
        if "://" in masks
        else _inline(Path(masks), image_uri, format_, orientation),
        "options": scoring,
        **given,
    }
    try:
        return Job.model_validate(document)
    except ValidationError as error:
        raise InvalidDocumentError(f"The job is not valid: {explain(error)}.") from error


def _uri(image: str) -> str:
    return image if "://" in image else Path(image).absolute().as_uri()


def _inline(path: Path, image_uri: str, format_: str | None, orientation: Orientation) -> list[Any]:
    if not path.is_file():
        raise InvalidDocumentError(f"There is no masks file {path}.")
    masks = []
    name, size, orphans = path_in(image_uri), _size_of(image_uri, orientation), Orphans()
    doubts: list[str] = []
    read = read_masks(
        path.read_bytes(),
        image_name=name,
        format=format_,
        size=size,
        orphans=orphans,
        file_name=path.name,
        doubts=doubts,
    )
    for doubt in doubts:
        click.echo(f"maskscore: {path}: {doubt}", err=True)
    if orphans.count and not read:
        raise NothingToScore(f"{path}: {orphans}, so there is nothing to score.")
    if orphans.count:
        click.echo(f"maskscore: {path}: {orphans}; not scored", err=True)
    for mask in read:
        if isinstance(mask, UnreadableMask):
            click.echo(f"maskscore: {path}: mask {mask.id} is left out: {mask.message}", err=True)
        else:
            masks.append(mask)
    if read and not masks:
        raise NothingToScore(f"{path}: all {len(read):,} entries are left out, so there is nothing to score.")
    return masks


def _size_of(image_uri: str, orientation: Orientation) -> tuple[int, int] | None:
    """Return ``(height, width)`` of an image that lies here: normalised polygons need it."""
    parts = urlsplit(image_uri)
    return image_size(Path(url2pathname(parts.path)), orientation) if parts.scheme == "file" else None
