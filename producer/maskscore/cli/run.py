"""``run``: a whole dataset, from a listing to a summary."""

from __future__ import annotations

import sys
from typing import Any

import click
from pydantic import ValidationError

from maskscore.cli.exit_codes import Exit
from maskscore.cli.optional_dependencies import needs_extra
from maskscore.cli.progress import RunProgressDisplay
from maskscore.cli.run_as_shards import check_goes_with_output, run_as_shards
from maskscore.cli.run_output import print_dry_run, print_summary
from maskscore.cli.shared_options import (
    check_prefix,
    job_options,
    place_for_parts,
    scoring_options,
    taken_job_fields,
    taken_scoring,
)
from maskscore.cli.stop_and_resume import command_to_resume, stopped_by_signals
from maskscore.cli.worker_warnings import warn_of_workers
from maskscore.client import Client
from maskscore.dataset import (
    PAIRS_PER_LIST,
    Dataset,
    RunOptions,
    default_batch_id,
    is_tar,
    run_dataset,
)
from maskscore.errors import InvalidDocumentError
from maskscore.formats import FORMATS
from maskscore.schema import JOB_ID_PATTERN, ScoringOptions, explain
from maskscore.text import counted

__all__ = ["run_command"]


@click.command("run")
@click.argument("places", metavar="IMAGES", nargs=-1, required=True)
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
    "-o",
    "--output",
    metavar="DIR|S3_URI",
    help="Score many images per job (shards), into Parquet files in this folder or below s3://bucket/prefix/.",
)
@click.option(
    "--shard-images",
    type=click.IntRange(min=1),
    help=f"With -o: most images of a shard that is no tar file.  [default: {PAIRS_PER_LIST}]",
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
@click.option("--retry-failed", is_flag=True, help="With --resume: also run failed jobs, and images of shards, again.")
@click.option("--follow/--no-follow", default=True, help="Wait for the results, or only submit.  [default: follow]")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def run_command(
    places: tuple[str, ...],
    masks: str | None,
    format_: str | None,
    image_suffix: str | None,
    masks_suffix: str | None,
    upload: str | None,
    output: str | None,
    shard_images: int | None,
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

    With -o, workers take many images at a time, a shard, and write the scores as Parquet; `export` and other tools read
    them. IMAGES may be tar files of images and masks then ('s3://bucket/*.tar', in quotes, or local ones), too, each of
    which is a shard. A folder is written by workers of this machine, or that have it mounted, where their
    MASKSCORE_RESULT_ROOTS allow it.
    """
    images = places[0]
    if len(places) > 1:
        raise click.UsageError(
            f"IMAGES is one place, and {len(places)} were given. Where the shell has made them of a pattern, put it in "
            "quotes: 's3://bucket/*.tar', 'tars/*.tar'"
        )
    if retry_failed and not resume:
        raise click.UsageError("--retry-failed goes with --resume")
    check_prefix("--upload", upload)
    check_prefix("--result-uri", options["result_uri"])
    if batch_id is not None and not JOB_ID_PATTERN.fullmatch(batch_id):
        raise click.UsageError("--batch-id: letters, digits and ._:- are taken, 128 at most, a letter or digit first")
    output = None if output is None else place_for_parts("-o", output)
    dataset = Dataset(images, masks, format_, image_suffix, masks_suffix)
    run_options = _run_options(options, content_id, upload)
    if output is not None:
        others = {
            "--result-uri": options["result_uri"],
            "--content-id": content_id,
            "--masks": masks,
            "--image-suffix": image_suffix,
            "--masks-suffix": masks_suffix,
            "--limit": limit,
            "--shard-images": shard_images,
        }
        check_goes_with_output(images, others)
        run_as_shards(
            dataset,
            output,
            run_options,
            shard_images or PAIRS_PER_LIST,
            batch_id,
            limit,
            dry_run,
            resume,
            retry_failed,
            follow,
            as_json,
        )
        return
    if is_tar(images) or shard_images is not None:
        what = "--shard-images goes" if shard_images is not None else "tar files, and patterns, which name some, go"
        raise click.UsageError(
            f"{what} with -o, the folder or s3://bucket/prefix/ where the scores are written as Parquet"
        )
    progress = RunProgressDisplay()
    with Client() as client, stopped_by_signals() as stop, needs_extra("formats"):

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
        again = command_to_resume(batch_id)
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
