"""``export``: results of batches and jobs in the formats of other tools."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Final

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from maskscore.cli.batch_or_job import find_batch, find_parts
from maskscore.cli.exit_codes import Exit
from maskscore.cli.local_heads import local_head
from maskscore.cli.optional_dependencies import check_installed
from maskscore.cli.progress import shown_parts, shown_progress
from maskscore.cli.terminal import new_console, text_column
from maskscore.client import Client
from maskscore.export import (
    DEFAULT_WEIGHTS,
    EXPORT_FORMATS,
    LABEL_SOURCES,
    JobSource,
    Labelling,
    Parts,
    Ranking,
    Selection,
    export_format_of,
    read_classes,
    write_export,
)
from maskscore.results import is_parts_folder

__all__ = ["export_command"]

_SHARE: Final = click.FloatRange(min=0, min_open=True, max=1)


def _numbers(text: str, *, option: str, alone: float | None = None) -> dict[str, float]:
    """Read ``NAME=NUMBER,...``; a name without a number has the number ``alone``, where that is given."""
    numbers = {}
    for item in text.split(","):
        name, equals, number = (part.strip() for part in item.partition("="))
        try:
            if not name or (not equals and alone is None):
                raise ValueError
            numbers[name] = float(number) if equals else alone or 0.0
        except ValueError:
            raise click.UsageError(f"{option}: {item!r} is not NAME=NUMBER, such as predicted_iou=0.88") from None
    return numbers


@click.command("export")
@click.argument("names", nargs=-1, metavar="[BATCH|JOB|PARTS]...")
@click.option("--jobs", "listed", type=click.File("r"), help="File with a job's id per line; `-` is stdin.")
@click.option(
    "-o",
    "--output",
    default="-",
    show_default=True,
    help="File, new folder (SA-1B, YOLO), or s3://bucket/key; `-` is stdout.",
)
@click.option(
    "-f",
    "--format",
    "format_",
    type=click.Choice(EXPORT_FORMATS),
    help="Output format.  [default: by the output's name: .jsonl, .parquet, .json for COCO, a folder for SA-1B]",
)
@click.option("--wait", "wait_", is_flag=True, help="Wait first until all jobs have ended.")
@click.option("--timeout", type=float, help="With --wait: seconds to wait at most.")
@click.option("--min-multiplier", type=float, help="Minimum semantic_multiplier.")
@click.option("--max-neg", type=float, help="Maximum p_neg_sum.")
@click.option("--min-area", type=int, help="Minimum area in pixels.")
@click.option(
    "--min",
    "at_least",
    multiple=True,
    metavar="NAME=NUMBER,...",
    help="Minimum values of upstream fields, such as predicted_iou=0.88.",
)
@click.option("--head", metavar="NAME|FILE.json", help="Decide with this head, on the results' scores or embeddings.")
@click.option("--keep", is_flag=True, help="Only masks that the head keeps.")
@click.option("--min-p-keep", type=click.FloatRange(0, 1), help="Minimum p_keep.")
@click.option("--include-skipped", is_flag=True, help="Also write masks without a score.")
@click.option(
    "--rank-by",
    default=",".join(DEFAULT_WEIGHTS),
    show_default=True,
    metavar="NAME[=WEIGHT],...",
    help="Factors of the rank score with exponents: multiplier, s_pos, p_pos_sum, p_keep, area, or upstream fields.",
)
@click.option("--sort", is_flag=True, help="Sort by rank score, best first, instead of in the jobs' order.")
@click.option("--top", metavar="N", type=click.IntRange(min=1), help="Keep only the N best masks of all, best first.")
@click.option(
    "--top-per-image", metavar="N", type=click.IntRange(min=1), help="Keep only the N best masks of each image."
)
@click.option(
    "--label-from",
    type=click.Choice(list(LABEL_SOURCES)),
    help="Give each mask a label: its best prompt, or the class that a head by class names.",
)
@click.option(
    "--classes",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --label-from: YAML or JSON of `prompt: class` (of a head `class: label`); null leaves those masks out.",
)
@click.option("--min-score", type=float, help="With --label-from: minimum score of the label: s_pos, or p_keep.")
@click.option(
    "--nms", type=_SHARE, help="Leave out duplicates: masks of an image whose IoU with a better one is at least this."
)
@click.option(
    "--drop-parts", type=_SHARE, help="Leave out parts: masks of whose area at least this share lies in a larger one."
)
@click.option(
    "--drop-wholes", type=_SHARE, help="Leave out wholes: masks that contain at least this share of a smaller one."
)
@click.option(
    "--no-segmentations", is_flag=True, help="JSON Lines and Parquet: leave out the segmentations, which is faster."
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as a JSON object on stdout.")
def export_command(
    names: tuple[str, ...],
    listed: IO[str] | None,
    output: str,
    format_: str | None,
    wait_: bool,
    timeout: float | None,
    min_multiplier: float | None,
    max_neg: float | None,
    min_area: int | None,
    at_least: tuple[str, ...],
    head: str | None,
    keep: bool,
    min_p_keep: float | None,
    include_skipped: bool,
    rank_by: str,
    sort: bool,
    top: int | None,
    top_per_image: int | None,
    label_from: str | None,
    classes: Path | None,
    min_score: float | None,
    nms: float | None,
    drop_parts: float | None,
    drop_wholes: float | None,
    no_segmentations: bool,
    as_json: bool,
) -> None:
    """Write masks and their scores to a file for other tools.

    Each BATCH|JOB is the id of a batch or of a job; `-` reads ids from stdin. PARTS, alone, is a folder (with a slash,
    such as scores/) or s3:// prefix with the parts of shards; the id of a batch of shards, alone, stands for theirs.
    Jobs, images or shards without a result are counted and left out; then, or when a mask's segmentation cannot be read
    any more, the exit code is 1. A failed export leaves no incomplete output.
    """
    format_ = format_ or export_format_of(output)
    if format_ is None:
        raise click.UsageError(f"{output!r} does not say which format is meant: give --format")
    if output == "-" and (format_ != "jsonl" or as_json):
        raise click.UsageError(f"{'--json' if format_ == 'jsonl' else format_} needs a name to write to: -o NAME")
    if no_segmentations and format_ not in ("jsonl", "parquet"):
        raise click.UsageError(f"{format_} without segmentations is of no use: leave out --no-segmentations")
    if label_from is None and (classes is not None or min_score is not None):
        raise click.UsageError("--classes and --min-score go with --label-from, such as --label-from s_pos_text")
    if drop_parts is not None and drop_wholes is not None:
        raise click.UsageError("--drop-parts keeps the wholes, --drop-wholes the parts: give one of them")
    selection = Selection(
        min_multiplier=min_multiplier,
        max_neg=max_neg,
        min_area=min_area,
        at_least=_numbers(",".join(at_least), option="--min") if at_least else {},
        head=None if head is None else local_head(head),
        keep=keep,
        min_p_keep=min_p_keep,
        include_skipped=include_skipped,
        ranking=Ranking(_numbers(rank_by, option="--rank-by", alone=1.0)),
        sort=sort,
        top=top,
        top_per_image=top_per_image,
        labelling=_labelling(label_from, classes, min_score),
        nms=nms,
        drop_parts=drop_parts,
        drop_wholes=drop_wholes,
    )
    if any(is_parts_folder(name) for name in names) and (len(names) > 1 or listed or wait_):
        raise click.UsageError("parts are exported alone: give one folder or s3:// prefix, without jobs and --wait")
    # A mask per line, in the jobs' order, is written as it comes; all else is a query over all masks.
    if any(is_parts_folder(name) for name in names) or format_ != "jsonl" or selection.needs_all:
        _check_engine()
    if selection.compares_masks and no_segmentations:
        raise click.UsageError("masks are compared by their pixels: leave out --no-segmentations")
    if selection.compares_masks or format_ in ("yolo", "label-studio"):
        check_installed("pycocotools", "export")
    with Client() as client:
        jobs = None
        if wait_:
            jobs = _job_source(client, names, listed)
            jobs.wait(timeout, partial(shown_progress, client=client))
        parts = find_parts(client, names[0]) if len(names) == 1 and names[0] != "-" and not listed else None
        if parts is not None:
            _check_engine()
            reading: AbstractContextManager[Parts | Iterator[str]] = shown_parts(parts)
        else:
            reading = _shown(jobs or _job_source(client, names, listed))
        with reading as source:
            counts = write_export(client, source, output, format_, selection, segmentations=not no_segmentations)
    if as_json:
        click.echo(json.dumps(counts.as_dict()))
    else:
        for line in str(counts).splitlines():
            click.echo(f"maskscore: {line}", err=True)
    if not counts.complete:
        sys.exit(Exit.NOT_SUCCEEDED)


def _check_engine() -> None:
    for module in ("pyarrow", "duckdb"):
        check_installed(module, "export")


def _labelling(source: str | None, classes: Path | None, min_score: float | None) -> Labelling | None:
    if source is None:
        return None
    return Labelling(source=source, classes=None if classes is None else read_classes(classes), min_score=min_score)


def _job_source(client: Client, names: Iterable[str], listed: IO[str] | None) -> JobSource:
    ids = [line.strip() for line in listed if line.strip()] if listed else []
    batches = []
    for name in dict.fromkeys(names):
        if name == "-":
            ids += [line.strip() for line in sys.stdin if line.strip()]
        # An id of a list may be gone, and is then counted; an id that is an argument must exist.
        elif (batch := find_batch(client, name)) is None:
            ids.append(name)
        else:
            batches.append(batch)
    source = JobSource(client, batches, ids)
    if not source.total:
        raise click.UsageError("no batch and no job was named, neither as an argument nor by --jobs or stdin")
    return source


@contextmanager
def _shown(jobs: JobSource) -> Iterator[Iterator[str]]:
    """Provide the ids, with a bar on stderr if that is a terminal."""
    console = new_console(stderr=True)
    if not console.is_terminal:
        yield iter(jobs)
        return
    columns = (text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("jobs read", total=jobs.total)

        def counted() -> Iterator[str]:
            for job_id in jobs:
                yield job_id
                progress.advance(bar)
            progress.update(bar, description="writing")

        yield counted()
