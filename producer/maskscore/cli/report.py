"""``report``: the results of jobs as pages to look at."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from maskscore import results
from maskscore.cli.batch_or_job import PartsNamed, find_batch, find_parts, read_job_ids
from maskscore.cli.exit_codes import Exit
from maskscore.cli.jobs_without_scores import JobsWithoutScores
from maskscore.cli.optional_dependencies import check_installed, needs_extra
from maskscore.cli.progress import shown_progress
from maskscore.client import Client, are_shards
from maskscore.storage import OutputError, check_output
from maskscore.text import counted

if TYPE_CHECKING:
    from maskscore.report import ReportEntry

__all__ = ["report_command"]

_MOST_IN_ONE_FILE: Final = 50
_MOST_CLASSES: Final = 9


@click.command("report")
@click.argument("names", nargs=-1, metavar="[BATCH|JOB|PARTS...]")
@click.option("--batch", "batches", multiple=True, help="Id of a batch, for an id that is also a job's.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="NAME.html for one file, or a folder.  [default: report.html; of more than "
    f"{_MOST_IN_ONE_FILE} images the folder report/]",
)
@click.option("--title", default="maskscore report", show_default=True, help="Title of the pages.")
@click.option("--judge", is_flag=True, help="Pages on which masks are judged (keep, drop), and the judgements saved.")
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME",
    help="With --judge: a class to choose from, instead of keep and drop; repeatable, 9 at most.",
)
def report_command(
    names: tuple[str, ...],
    batches: tuple[str, ...],
    output: Path | None,
    title: str,
    judge: bool,
    classes: tuple[str, ...],
) -> None:
    """Write the results of jobs as HTML pages.

    The pages have a contact sheet, histograms, the masks over their images, scores and crops.

    Each BATCH|JOB is the id of a batch or of a job; `-` reads ids from stdin. PARTS are a folder or s3:// prefix with
    the parts of shards, with a slash in its name; so are batches of shards. A file is self-contained. A folder has an
    index.html and pages of 20 images each. Jobs that are named must have ended; jobs of a batch that have not are shown
    with their state. Exits with 1 where a job, or an image of a shard, had masks and none was scored, and where an
    image or a shard has no result.
    """
    if not names and not batches:
        raise click.UsageError("name batches or jobs, or give --batch")
    if classes and not judge:
        raise click.UsageError("--class goes with --judge")
    if len(classes) > _MOST_CLASSES:
        raise click.UsageError(f"--class: {len(classes)} classes; {_MOST_CLASSES} have a key. Use `maskscore review`")
    if len(set(classes)) < len(classes) or not all(name.strip() for name in classes):
        raise click.UsageError("--class: each class needs a name of its own")
    with needs_extra("report"):
        from maskscore.report import write_folder, write_report
    with Client() as client:
        sources = [_batch(client, name) for name in batches]
        sources += _named(client, read_job_ids(names)) if names else []
        count = sum(source.count for source in sources)
        named = output is not None
        output = output or Path("report.html" if count <= _MOST_IN_ONE_FILE else "report")
        one_file = output.suffix.lower() in (".html", ".htm") and not output.is_dir()
        # Said now, and not after everything was drawn.
        if one_file and not output.absolute().parent.is_dir():
            raise click.UsageError(f"there is no folder {output.parent}")
        if not one_file and output.is_file():
            raise click.UsageError(f"{output} is a file: name a folder, or a file NAME.html")
        if one_file:
            check_output(output, named=named)
        elif not named and output.is_dir() and any(output.iterdir()):
            raise OutputError(f"{output} exists. Give `-o {output}` to replace the report in it, or another name.")
        if one_file and count > _MOST_IN_ONE_FILE:
            click.echo(
                f"maskscore: {counted(count, 'image')} in one file; the pages of `-o FOLDER` load faster", err=True
            )
        without_scores = JobsWithoutScores()
        entries = shown_progress((entry for source in sources for entry in source.entries), count, doing="drawing")
        entries = without_scores.count_in_items(entries, lambda entry: entry.result)
        if one_file:
            write_report(output, entries, title=title, judge=judge, classes=classes)
        else:
            output = write_folder(output, entries, title=title, judge=judge, classes=classes)
    click.echo(str(output.absolute()))
    without_scores.print_examples()
    without_result = sum((source.without_result for source in sources), Counter())
    if without_result:
        listed = ", ".join(f"{code} {count:,}" for code, count in without_result.most_common())
        click.echo(f"maskscore: images without a result: {listed}", err=True)
    if without_scores or without_result:
        sys.exit(Exit.NOT_SUCCEEDED)


class _Source:
    """Where entries come from, and how many; ``without_result`` counts images and shards of parts by their code."""

    def __init__(self, count: int, entries: Iterator[ReportEntry], without_result: Counter[str] | None = None) -> None:
        self.count, self.entries = count, entries
        self.without_result = Counter() if without_result is None else without_result


def _batch(client: Client, name: str) -> _Source:
    from maskscore.report import batch_entries

    batch = client.batch(name)
    if are_shards(client, batch.job_ids()) and (parts := find_parts(client, name)) is not None:
        return _parts(parts)
    return _Source(len(batch), batch_entries(client, batch))


def _named(client: Client, names: list[str]) -> list[_Source]:
    from maskscore.report import batch_entries, job_entries

    sources = []
    for name in names:
        # Asked before anything is drawn, so that a misspelt name costs no time.
        if (parts := find_parts(client, name)) is not None:
            sources.append(_parts(parts))
        elif (batch := find_batch(client, name)) is not None:
            sources.append(_Source(len(batch), batch_entries(client, batch)))
        else:
            sources.append(_Source(1, job_entries(client, [name])))
    return sources


def _parts(parts: PartsNamed) -> _Source:
    check_installed("pyarrow", "export")
    from maskscore.report import ReportEntry, parts_entries

    without_result = parts.codes

    def entries() -> Iterator[ReportEntry]:
        for entry in parts_entries(parts.place):
            if entry.result.error is not None:
                without_result[entry.result.error.code] += 1
            yield entry
        for result in parts.without_result:
            yield ReportEntry(None, result, None)

    table = results.open(parts.place, "images")
    images = table.count_rows() - len(results.superseded_rows(table))
    return _Source(images + len(parts.without_result), entries(), without_result)
