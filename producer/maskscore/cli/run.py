"""``run``: a whole dataset, from a listing to a summary."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click
from pydantic import ValidationError

from maskscore.cli.exit_codes import Exit
from maskscore.cli.optional_dependencies import needs_extra
from maskscore.cli.progress import RunProgressDisplay
from maskscore.cli.run_output import print_dry_run, print_summary
from maskscore.cli.shard_run_output import ShardRunDisplay, print_shard_summary, print_tars
from maskscore.cli.shared_options import job_options, scoring_options, taken_job_fields, taken_scoring
from maskscore.cli.worker_warnings import warn_of_workers
from maskscore.client import Client
from maskscore.dataset import Dataset, RunOptions, default_batch_id, find_tars, is_tar, run_dataset, run_shards
from maskscore.errors import InvalidDocumentError
from maskscore.formats import FORMATS
from maskscore.schema import JOB_ID_PATTERN, ScoringOptions, explain
from maskscore.text import counted

__all__ = ["run_command"]


@click.command("run")
@click.argument("images", metavar="IMAGES")
@click.option("--masks", help="Folder or s3:// prefix of the masks, or a dataset file.  [default: beside the images]")
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(FORMATS)),
    metavar="NAME",
    help="Format of the masks (docs/reference/formats), such as coco.  [default: detected]",
)
@click.option("--image-suffix", metavar="ENDING", help="Ending of the image files' names, such as _leftImg8bit.png.")
@click.option("--masks-suffix", metavar="ENDING", help="Ending of the mask files' names, such as _mask.png.")
@click.option(
    "--upload", metavar="S3_URI", help="Upload local files to this s3://bucket/prefix/, for the workers to read."
)
@click.option(
    "-o", "--output", metavar="S3_URI", help="IMAGES are tar files, scored into Parquet below this s3://bucket/prefix/."
)
@scoring_options
@job_options
@click.option("--result-uri", help="s3://bucket/prefix/ for the results; without it they stay in Redis.")
@click.option("--batch-id", help="Id of the batch.  [default: derived from the dataset and options]")
@click.option("--content-id", is_flag=True, help="Derive job ids from the content, so that the same work is done once.")
@click.option("--limit", type=click.IntRange(min=1), help="Maximum number of images.")
@click.option("--dry-run", is_flag=True, help="Show what would be submitted, and submit nothing.")
@click.option(
    "--resume", is_flag=True, help="Continue an earlier run. Changed options apply only to images without a result."
)
@click.option("--retry-failed", is_flag=True, help="With --resume: also run failed jobs again.")
@click.option("--follow/--no-follow", default=True, help="Wait for the results, or only submit.  [default: follow]")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def run_command(
    images: str,
    masks: str | None,
    format_: str | None,
    image_suffix: str | None,
    masks_suffix: str | None,
    upload: str | None,
    output: str | None,
    batch_id: str | None,
    content_id: bool,
    limit: int | None,
    dry_run: bool,
    resume: bool,
    retry_failed: bool,
    follow: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Score a whole dataset, and print a summary.

    Pairs the images with their masks, submits them, and follows the jobs.

    IMAGES is a folder or an s3://bucket/prefix/. A local folder's files are read by the workers as file:// (their
    MASKSCORE_FILE_ROOTS must allow it), or are put into a bucket with --upload. Ctrl-C stops submitting; --resume
    continues, and scores nothing twice. Exits with 1 if an image has no result.

    With -o, IMAGES are tar files of images and masks ('s3://bucket/*.tar', in quotes, or local ones), a shard each.
    """
    if retry_failed and not resume:
        raise click.UsageError("--retry-failed goes with --resume")
    _check_prefix("--upload", upload)
    _check_prefix("--result-uri", options["result_uri"])
    if batch_id is not None and not JOB_ID_PATTERN.fullmatch(batch_id):
        raise click.UsageError("--batch-id: letters, digits and ._:- are taken, 128 at most, a letter or digit first")
    _check_prefix("--output", output)
    if output is not None or is_tar(images):
        others = {
            "--masks": masks,
            "--image-suffix": image_suffix,
            "--masks-suffix": masks_suffix,
            "--upload": upload,
            "--result-uri": options["result_uri"],
            "--content-id": content_id,
            "--limit": limit,
        }
        given = [name for name, value in others.items() if value]
        if output is None or not is_tar(images) or given:
            raise click.UsageError(
                f"{given[0]} does not go with tar files"
                if given
                else "tar files ('s3://bucket/*.tar') and -o go together"
            )
        _run_shards(images, output, options, format_, batch_id, dry_run, resume, retry_failed, follow, as_json)
        return
    dataset = Dataset(images, masks, format_, image_suffix, masks_suffix)
    run_options = _run_options(options, content_id, upload)
    progress = RunProgressDisplay()
    with Client() as client, _stopped_by_signals() as stop, needs_extra("formats"):

        def seen(files: int) -> None:
            progress.listing(files)
            if stop.signal is not None:
                raise KeyboardInterrupt

        if dry_run:
            with progress, dataset.opened(client.objects, limit=limit, seen=seen) as opened:
                progress.close()
                print_dry_run(opened, as_json=as_json)
            return
        batch_id = batch_id or default_batch_id(run_options.fingerprint(dataset.identity(client.objects)))
        again = _command_to_resume(batch_id)
        click.echo(f"maskscore: batch {batch_id}", err=True)
        if warn_of_workers(client, run_options.options.model, run_options.options.prompts):
            progress.said_no_worker = True
        with progress:
            summary = run_dataset(
                client,
                dataset,
                run_options,
                batch_id=batch_id,
                limit=limit,
                resume=resume,
                retry=retry_failed,
                follow=follow,
                stopped=lambda: stop.signal is not None,
                changed=_say_changes,
                seen=seen,
                shown=progress.show,
            )
    print_summary(summary, as_json=as_json, follow=follow)
    if stop.signal is not None:
        click.echo(
            f"maskscore: stopped; {summary.counts.total:,} of {counted(summary.images, 'image')} submitted, whose jobs "
            f"go on. Go on with:\n  {again}",
            err=True,
        )
        sys.exit(128 + stop.signal)
    if summary.stopped_by:
        failures = summary.failures[summary.stopped_by]
        click.echo(
            f"maskscore: stopped early: the first {failures.count:,} jobs all failed with {summary.stopped_by}, whose "
            "cause concerns every job; those that had not ended are cancelled. When the cause is mended, go on with:"
            f"\n  {again} --retry-failed\nIf an option was wrong, give the right one instead.",
            err=True,
        )
        sys.exit(Exit.NOT_SUCCEEDED)
    if not follow and not summary.submitted.refused_count:
        click.echo(f"maskscore: all are submitted. See the results with:\n  {again}", err=True)
    elif not summary.succeeded:
        if summary.failures:
            click.echo(f"maskscore: when that is mended, go on with:\n  {again} --retry-failed", err=True)
        sys.exit(Exit.NOT_SUCCEEDED)


def _run_shards(
    place: str,
    output: str,
    options: dict[str, Any],
    format_: Any,
    batch_id: str | None,
    dry_run: bool,
    resume: bool,
    retry_failed: bool,
    follow: bool,
    as_json: bool,
) -> None:
    run_options = _run_options(options, False, None)
    with Client() as client, _stopped_by_signals() as stop:
        if dry_run:
            print_tars(find_tars(place, client.objects), as_json=as_json)
            return
        warn_of_workers(client, run_options.options.model, run_options.options.prompts)
        summary = run_shards(
            client,
            place,
            output,
            run_options,
            masks_format=format_,
            batch_id=batch_id,
            resume=resume,
            retry=retry_failed,
            follow=follow,
            stopped=lambda: stop.signal is not None,
            shown=ShardRunDisplay().show,
        )
    print_shard_summary(summary, as_json=as_json)
    again = _command_to_resume(summary.batch_id)
    if stop.signal is not None:
        click.echo(f"maskscore: stopped; the shards go on. Follow them with:\n  {again}", err=True)
        sys.exit(128 + stop.signal)
    if not follow:
        click.echo(f"maskscore: all are submitted. Follow them with:\n  {again}", err=True)
    elif not summary.succeeded:
        if summary.failures:
            click.echo(f"maskscore: when that is mended, go on with:\n  {again} --retry-failed", err=True)
        sys.exit(Exit.NOT_SUCCEEDED)


class _Stop:
    """Which signal has asked for the end."""

    signal: int | None = None


@contextmanager
def _stopped_by_signals() -> Iterator[_Stop]:
    """Note the first Ctrl-C or SIGTERM, so that the jobs in hand are finished; the second one ends at once."""
    stop = _Stop()

    def note(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_options(options: dict[str, Any], content_id: bool, upload: str | None) -> RunOptions:
    try:
        scoring = ScoringOptions.model_validate(taken_scoring(options))
    except ValidationError as error:
        raise InvalidDocumentError(f"The options are not valid: {explain(error)}.") from error
    fields = {**taken_job_fields(options), **{name: value for name, value in options.items() if value is not None}}
    return RunOptions(scoring, fields, content_id, upload)


def _say_changes(changes: list[str]) -> None:
    click.echo(
        f"maskscore: goes on with other options: {'; '.join(changes)}. What was scored stays as it is; all the rest is "
        "done with these.",
        err=True,
    )


def _check_prefix(option: str, uri: str | None) -> None:
    if uri is not None and not (uri.startswith("s3://") and uri.endswith("/") and len(uri) > len("s3:///")):
        raise click.UsageError(f"{option} {uri!r}: write s3://bucket/prefix/, with the slash at its end")


def _command_to_resume(batch_id: str) -> str:
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--retry-failed", "--no-follow")]
    if not any(argument.split("=")[0] == "--batch-id" for argument in arguments):
        arguments += ["--batch-id", batch_id]
    return shlex.join(["maskscore", *arguments, "--resume"])
