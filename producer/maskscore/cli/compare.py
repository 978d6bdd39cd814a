"""``compare``: one image's masks under several treatments, and by cosines, side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.table import Table

from maskscore.cli.exit_codes import Exit
from maskscore.cli.jobs_without_scores import JobsWithoutScores
from maskscore.cli.optional_dependencies import needs_extra
from maskscore.cli.printable_streams import sentence
from maskscore.cli.progress import wait_for
from maskscore.cli.shared_options import scoring_options_of
from maskscore.cli.submit import job_from_options
from maskscore.cli.terminal import new_console
from maskscore.cli.worker_warnings import warn_of_workers
from maskscore.client import Client
from maskscore.schema import JobState
from maskscore.storage import check_output, file_name_of
from maskscore.text import counted

if TYPE_CHECKING:
    from maskscore.report import Cell, ComparedMask, Comparison

__all__ = ["compare_command"]

_WIDEST_NAME: Final = 16
_NARROWEST: Final = 5


@click.command("compare")
@click.argument("image")
@click.option("--masks", required=True, help="URI of the masks, or the path of a file that is read here.")
@click.option(
    "--treatment",
    "treatments",
    multiple=True,
    metavar="NAME[,OPTION=VALUE...]",
    help="A treatment to compare, such as soft_mask,alpha=0.7; may be repeated.  [default: original, raw_crop, "
    "soft_mask]",
)
@scoring_options_of("prompts", "thresholds", "method", "min_area", "split_components", "model")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="HTML file to write; an existing file is replaced.  [default: compare.html, only if it does not exist]",
)
@click.option("--timeout", type=float, help="Seconds to wait at most; the jobs are cancelled after that.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per mask instead of the table.")
def compare_command(
    image: str,
    masks: str,
    treatments: tuple[str, ...],
    output: Path | None,
    timeout: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Score an image under several treatments, and show differences.

    Scores are probabilities and cosines. IMAGE is an s3:// or file:// URI, or a path. Two jobs per treatment go to
    the running service. The page shows the crops as the model saw them; masks whose verdict depends on the treatment
    come first, in the table as well.
    """
    with needs_extra("report"):
        from maskscore.report import TREATMENTS, Comparison, comparison_jobs, job_entries, write_comparison
    if options["method"] == "cosine":
        raise click.UsageError(
            "--method says which probabilities decide, softmax or sigmoid; cosines stand beside them"
        )
    named, output = output is not None, output or Path("compare.html")
    if not output.absolute().parent.is_dir():
        raise click.UsageError(f"there is no folder {output.parent}")
    check_output(output, named=named)
    names = list(dict.fromkeys(treatments)) or list(TREATMENTS)
    base = job_from_options(image, masks, {**options, "top_k": 3})
    jobs = comparison_jobs(base, names)
    ids = [job.job_id for job in jobs]
    with Client() as client:
        warn_of_workers(client, base.options.model, base.options.prompts)
        batch = client.submit_many(jobs, wait_for_room=True)
        try:
            results = wait_for(client, ids, timeout)
        except BaseException:
            # Nobody else knows of these jobs.
            batch.cancel()
            raise
        failed = next((result for result in results if result.state is not JobState.SUCCEEDED), None)
        if failed is not None:
            why = f"{failed.error.code}: {failed.error.message}" if failed.error else str(failed.state)
            click.echo(f"maskscore: {sentence(why)}", err=True)
            sys.exit(Exit.NOT_SUCCEEDED)
        without_scores = JobsWithoutScores()
        for _ in without_scores.count_in(results):
            pass
        without_scores.print_examples()
        comparison = Comparison(names, results)
        [entry] = job_entries(client, ids[:1])
        write_comparison(output, comparison, jobs, entry, title=f"Treatments of {file_name_of(base.image.uri)}")
    if as_json:
        for mask in comparison.masks:
            click.echo(json.dumps(_document(names, mask, base.options.method)))
    else:
        _print(comparison)
    click.echo(str(output.absolute()), err=as_json)
    if without_scores:
        sys.exit(Exit.NOT_SUCCEEDED)


def _print(comparison: Comparison) -> None:
    console = new_console()
    names, total = comparison.treatments, counted(len(comparison.masks), "mask")
    longest = max([len("mask"), *(len(mask.name) for mask in comparison.masks)])
    room = max(_NARROWEST, (console.width - 3 - min(longest, _WIDEST_NAME) - 1) // len(names) - 1)
    # A heading that is cut off may be that of its neighbour.
    numbered = any(len(name) > room for name in names)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True, width=2)
    table.add_column("mask", no_wrap=True, overflow="ellipsis", width=min(longest, _WIDEST_NAME))
    for number, name in enumerate(names, 1):
        table.add_column(f"({number})" if numbered else name, no_wrap=True, overflow="ellipsis", width=room)
    for mask in comparison.masks:
        marks = ("≠" if mask.differs else " ") + ("c" if mask.methods_differ else " ")
        table.add_row(marks, mask.name, *map(_cell, mask.cells))
    console.print(table)
    for number, name in enumerate(names if numbered else (), 1):
        console.print(f"({number}) {name}")
    console.print(f"≠ the verdict depends on the treatment: {comparison.differing} of {total}")
    console.print(f"c cosines and probabilities disagree: {comparison.methods_differing} of {total}")


def _cell(cell: Cell) -> str:
    scored = cell.probabilities
    if scored.skipped is not None:
        return scored.skipped.code
    return f"{cell.grade.name} {scored.s_pos_text if cell.leans_positive else scored.s_neg_text}"


def _document(names: list[str], mask: ComparedMask, method: str) -> dict[str, Any]:
    return {
        "id": mask.component.id,
        "part": mask.component.part,
        "differs": mask.differs,
        "methods_differ": mask.methods_differ,
        "treatments": {
            name: {
                method: cell.probabilities.model_dump(exclude={"id", "index", "part", "upstream", "embedding"}),
                "cosine": cell.cosines.model_dump(include={"s_pos", "s_neg", "s_pos_text", "s_neg_text", "top_k"}),
            }
            for name, cell in zip(names, mask.cells, strict=True)
        },
    }
