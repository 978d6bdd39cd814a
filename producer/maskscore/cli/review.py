"""``review``: doubtful and random masks of a batch as tasks of Label Studio."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click

from maskscore.cli.batch_or_job import parts_named
from maskscore.cli.exit_codes import Exit
from maskscore.cli.local_heads import local_head
from maskscore.cli.optional_dependencies import check_installed
from maskscore.cli.progress import shown_parts, shown_progress
from maskscore.client import Client
from maskscore.review import (
    MARGIN,
    DoubtMeasure,
    ReviewCounts,
    ReviewOptions,
    check_review_output,
    open_image_urls,
    write_review,
)
from maskscore.text import counted

__all__ = ["review_command"]

_DAY_S: Final = 86_400
_TASKS: Final = Path("tasks.json")


def _measure(_context: click.Context, _option: click.Parameter, text: str | None) -> DoubtMeasure | None:
    if text is None:
        return None
    name, equals, number = (piece.strip() for piece in text.partition("="))
    try:
        if not name or not (equals or name == MARGIN):
            raise ValueError
        return DoubtMeasure(name, float(number) if equals else 0.0)
    except ValueError:
        raise click.UsageError(f"--by {text!r:.200}: write NAME=THRESHOLD, such as p_pos_sum=0.7") from None


@dataclass(frozen=True, slots=True)
class _Steps:
    """What the next steps depend on."""

    batch_id: str
    document_root: Path
    s3_uris: bool
    expires_days: float
    classes: tuple[str, ...]


@click.command("review")
@click.argument("batch_id", metavar="BATCH|PARTS")
@click.option("--doubtful", type=click.IntRange(min=0), default=200, show_default=True, help="How many doubtful masks.")
@click.option(
    "--random",
    "at_random",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="How many masks drawn at random from all scored ones.",
)
@click.option(
    "--by",
    "measure",
    metavar="NAME=THRESHOLD",
    callback=_measure,
    help="The number and the threshold whose distance is the doubt: margin (p_pos_sum - p_neg_sum; of cosines "
    "s_pos - s_neg), another score, p_keep of the batch's head, or a number of the upstream tool.  "
    f"[default: {MARGIN}=0, with --head its own number and threshold]",
)
@click.option("--head", metavar="NAME|FILE.json", help="Decide with this head first, and take its doubts.")
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME",
    help="A class to choose from, instead of keep and drop; repeatable.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random sample.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help=f"Where the tasks go.  [default: {_TASKS}]")
@click.option(
    "--expires-days",
    type=click.FloatRange(min=0, max=7, min_open=True),
    default=7,
    show_default=True,
    help="How long the URLs of images in S3 are valid.",
)
@click.option(
    "--s3-uris", is_flag=True, help="Leave s3:// URIs as they are: a storage set up in Label Studio signs them."
)
@click.option(
    "--document-root",
    type=click.Path(path_type=Path),
    default="/",
    show_default=True,
    envvar="LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT",
    show_envvar=True,
    help="Folder from which Label Studio serves local files.",
)
def review_command(
    batch_id: str,
    doubtful: int,
    at_random: int,
    measure: DoubtMeasure | None,
    head: str | None,
    classes: tuple[str, ...],
    seed: int,
    output: Path | None,
    expires_days: float,
    s3_uris: bool,
    document_root: Path,
) -> None:
    """Write masks of a batch, or of parts of shards, for people to judge in Label Studio.

    The tasks have the most doubtful masks, and a random share of all scored ones, which tells how good the others are.
    The labelling configuration is written beside them, as XML. The same seed draws the same masks.

    PARTS are a folder of parts of shards, s3://bucket/prefix/ or local, with a slash in its name; the id of a batch of
    shards stands for theirs. Images of tar files are written to a folder beside the tasks, and served as local files.

    Exits with 1 where jobs or images have no result, masks had to be left out, or no mask is scored.
    """
    if not doubtful and not at_random:
        raise click.UsageError("--doubtful 0 and --random 0 leave no mask to judge")
    if len(set(classes)) < len(classes) or not all(name.strip() for name in classes):
        raise click.UsageError("--class: each class needs a name of its own")
    for module in ("PIL", "numpy"):
        check_installed(module, "formats")
    tasks = output or _TASKS
    configuration = check_review_output(tasks, classes, named=output is not None)
    application = None if head is None else local_head(head)
    if measure is None:
        measure = DoubtMeasure() if application is None else DoubtMeasure.of_head(application.head)
    options = ReviewOptions(doubtful, at_random, seed, measure, classes, application)
    urls = open_image_urls(document_root=document_root, expires_s=round(expires_days * _DAY_S), s3_uris=s3_uris)
    with Client() as client, urls as images:
        parts = parts_named(client, [batch_id]).get(batch_id)
        if parts is not None:
            with shown_parts(parts) as shown:
                counts = write_review(client, shown, tasks, options, images)
        else:
            batch = client.batch(batch_id)
            batch.counts()
            counts = write_review(
                client,
                batch,
                tasks,
                options,
                images,
                progress=lambda ids: shown_progress(ids, len(batch), doing="reading"),
            )
    _print_what_is_missing(counts, "jobs" if parts is None else "images")
    if not counts.scored:
        what = f"batch {batch_id}" if parts is None else f"the parts of {batch_id}"
        click.echo(f"maskscore: no mask of {what} has a score, so there are no tasks", err=True)
        sys.exit(Exit.NOT_SUCCEEDED)
    if not counts.tasks:
        click.echo("maskscore: no chosen mask can be shown, so there are no tasks", err=True)
        sys.exit(Exit.NOT_SUCCEEDED)
    _print_summary(counts, measure)
    _print_next_steps(counts, tasks, configuration, _Steps(batch_id, document_root, s3_uris, expires_days, classes))
    click.echo(str(tasks.absolute()))
    if counts.unavailable or counts.without_result:
        sys.exit(Exit.NOT_SUCCEEDED)


def _print_summary(counts: ReviewCounts, measure: DoubtMeasure) -> None:
    within = (
        ""
        if counts.furthest is None
        else f", with a {measure.name} within {counts.furthest:.3g} of {measure.threshold:g}"
    )
    click.echo(
        f"maskscore: {counted(counts.tasks, 'task')} of {counted(counts.scored, 'scored mask')}: {counts.doubtful:,} "
        f"doubtful{within}; {counts.random:,} drawn at random",
        err=True,
    )


def _print_what_is_missing(counts: ReviewCounts, noun: str) -> None:
    if counts.without_result:
        listed = ", ".join(f"{code} {count:,}" for code, count in counts.without_result.items())
        click.echo(f"maskscore: {noun} without a result: {listed}", err=True)
    if counts.unavailable:
        click.echo(f"maskscore: left out: {counted(counts.unavailable, 'chosen mask')}", err=True)
        for reason in counts.reasons:
            click.echo(f"maskscore:   {reason}", err=True)


def _print_next_steps(counts: ReviewCounts, tasks: Path, configuration: Path, options: _Steps) -> None:
    lines = []
    if counts.local_folder:
        lines += [
            "Start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={options.document_root}."
        ]
    lines += [f"Create a project; in its settings under Labeling Interface, Code, paste {configuration}."]
    if counts.local_folder:
        lines += [
            f"Under Cloud Storage add a source of local files with the path {counts.local_folder}; do not sync it."
        ]
    if counts.s3_images and options.s3_uris:
        lines += ["Under Cloud Storage add a source for the bucket, with pre-signed URLs; do not sync it."]
    choice = "a class" if options.classes else "keep (key 1) or drop (key 2)"
    lines += [
        f"Import {tasks}.",
        f"In each task select each region and choose {choice}; then submit.",
        "Export as JSON.",
        f"Fit a head: maskscore fit {options.batch_id} --judged EXPORT.json"
        f"{' --by-class' if options.classes else ''} -o HEAD.json",
    ]
    if counts.s3_images and not options.s3_uris:
        end = datetime.now(UTC) + timedelta(days=options.expires_days)
        lines += [
            f"The images can be loaded until {end:%Y-%m-%d %H:%M} UTC, or as long as your S3 credentials are valid."
        ]
    click.echo("maskscore: with Label Studio:", err=True)
    for number, line in enumerate(lines, 1):
        click.echo(f"maskscore:   {number}. {line}", err=True)
