"""``eval``: which treatment, frame and prompt set do best on labelled masks."""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from maskscore.cli.exit_codes import Exit
from maskscore.cli.job_tables import table
from maskscore.cli.optional_dependencies import needs_extra
from maskscore.cli.progress import shown_progress
from maskscore.cli.shared_options import scoring_options_of
from maskscore.cli.terminal import new_console
from maskscore.cli.worker_warnings import warn_of_workers
from maskscore.client import Client
from maskscore.prompts import find_prompt_set
from maskscore.schema import Frame, Method, Treatment
from maskscore.settings import WorkerSettings, load_settings
from maskscore.statistics import Estimate
from maskscore.storage import check_output, write_text
from maskscore.text import counted

if TYPE_CHECKING:
    from maskscore.evaluation import Measurement

__all__ = ["eval_command"]


@click.command("eval")
@click.argument("coco", type=click.Path(dir_okay=False, path_type=Path), metavar="COCO.json")
@click.option("--images", required=True, metavar="DIR|s3://...", help="Where the workers find the file's images.")
@click.option(
    "--treatment",
    "treatments",
    multiple=True,
    type=click.Choice(get_args(Treatment)),
    help="Treatment to measure; repeatable.",
)
@click.option(
    "--frame", "frames", multiple=True, type=click.Choice(get_args(Frame)), help="Frame to measure; repeatable."
)
@click.option(
    "--view", "views", multiple=True, metavar="VIEW[+VIEW...]", help="TREATMENT[/FRAME], or some averaged; repeatable."
)
@scoring_options_of("alpha", "blur", "context")
@click.option(
    "--prompts",
    "prompts",
    multiple=True,
    default=("default",),
    help="Name of a prompt set, or a file; repeatable.",
)
@click.option(
    "--method", type=click.Choice(get_args(Method)), default="softmax", show_default=True, help="Scoring method."
)
@click.option("--classes", type=click.Path(dir_okay=False, path_type=Path), help="YAML file of `category: prompt`.")
@click.option("--negatives", multiple=True, metavar="CATEGORY", help="Category that counts as background; repeatable.")
@click.option(
    "--crowds",
    type=click.Choice(["ignore", "objects"]),
    default="ignore",
    show_default=True,
    help="What `iscrowd` annotations count as; CVAT sets iscrowd on every mask.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Maximum number of images, from the start of the file.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampled negatives.")
@click.option("--timeout", type=float, help="Seconds to wait at most.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Also write the chart to this file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def eval_command(
    coco: Path,
    images: str,
    treatments: tuple[Treatment, ...],
    frames: tuple[Frame, ...],
    views: tuple[str, ...],
    alpha: float | None,
    blur: float | None,
    context: float | None,
    prompts: tuple[str, ...],
    method: Method,
    classes: Path | None,
    negatives: tuple[str, ...],
    crowds: Literal["ignore", "objects"],
    limit: int | None,
    seed: int,
    timeout: float | None,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Measure treatments, frames and prompt sets on labelled masks.

    The running workers score the masks. The figures, for every --treatment with every --frame (without any: each
    treatment, cut), every --view, and every --prompts: whether a prompt of the true class is the best of the positive
    ones, or among the five best; and how well objects separate from background and from fragments (AUROC of p_pos_sum,
    with the method sigmoid of s_pos; and of s_pos - s_neg).

    Background is what the file calls so (--negatives, or categories with `isthing` 0). Where it has none, background
    and halves of objects are sampled.
    """
    with needs_extra("report"):
        from maskscore.evaluation import CocoEvaluation, draw, views_of
    if svg is not None:
        check_output(svg)
    numbers = {
        name: value for name, value in (("alpha", alpha), ("blur", blur), ("context", context)) if value is not None
    }
    prompts_dir = load_settings(WorkerSettings).prompts_dir
    sets = [find_prompt_set(name, prompts_dir).read() for name in prompts]
    evaluation = CocoEvaluation.read(
        coco,
        views=views_of(treatments, frames, views, numbers),
        prompt_sets=sets,
        method=method,
        classes=classes,
        negatives=negatives,
        crowds=crowds,
        limit=limit,
        seed=seed,
    )
    with Client() as client:
        for prompt_set in sets:
            warn_of_workers(client, None, prompt_set)
        progress = partial(shown_progress, client=client)
        measurements = evaluation.measure(client, images, timeout=timeout, progress=progress)
    about = evaluation.document()
    if as_json:
        click.echo(json.dumps({**about, "figures": [dataclasses.asdict(entry) for entry in measurements]}))
    else:
        _print(about, measurements)
    # After the measurements, which are not to be lost with a picture that cannot be written.
    if svg is not None:
        write_text(svg, draw(measurements))
    if evaluation.orphans.count:
        click.echo(f"maskscore: {coco}: {evaluation.orphans}; not measured", err=True)
    if any(entry.failed or not entry.objects for entry in measurements):
        sys.exit(Exit.NOT_SUCCEEDED)


def _print(about: dict[str, Any], measurements: list[Measurement]) -> None:
    console = new_console()
    first = measurements[0]
    console.print(
        f"{counted(about['images'], 'image')}: {counted(first.objects, 'object')}, "
        f"{counted(first.backgrounds, 'background')} and {counted(first.fragments, 'fragment')} ({about['negatives']})."
    )
    if about["crowds"]:
        console.print(
            f"Left out: {counted(about['crowds'], 'crowd')} (`iscrowd`; --crowds objects takes them as objects)."
        )
    if about["unusable_annotations"]:
        unusable = counted(about["unusable_annotations"], "annotation")
        console.print(f"Left out: {unusable} that cannot be used:", soft_wrap=True)
        for reason in about["unusable_reasons"]:
            console.print(f"  {reason}", soft_wrap=True)
    for name, unmapped in about["unmapped"].items():
        if unmapped:
            console.print(f"Without a prompt in {name!r}, and so not ranked: {', '.join(unmapped)}.")
    console.print()
    rows = table("view", "prompts", "top-1", "top-5", "AUROC", "±", "bg", "frag", "diff")
    # Widths that fit 80 columns; nothing of a long view is lost.
    rows.padding = (0, 1, 0, 0)
    rows.columns[0].no_wrap, rows.columns[0].overflow = False, "fold"
    for column in rows.columns[2:]:
        column.justify = "right"
    for entry in measurements:
        sums, difference = entry.auroc.values()
        rows.add_row(
            entry.view,
            entry.prompts,
            _percent(entry.top_1),
            _percent(entry.top_5),
            _area(sums["all"]),
            "" if sums["all"] is None else f"{(sums['all'].high - sums['all'].low) / 2:.3f}",
            _area(sums["background"]),
            _area(sums["fragment"]),
            _area(difference["all"]),
        )
    console.print(rows)
    console.print(
        "\ntop-1, top-5: a prompt of the true class is the best positive one, or among the five best. AUROC of "
        f"{next(iter(first.auroc))}, objects against all negatives with half of its 95 % interval by image (±), "
        "against backgrounds (bg) and fragments (frag) alone; diff: of s_pos - s_neg, against all."
    )
    for entry in measurements:
        for what, counts in (("masks skipped", entry.skipped), ("jobs failed", entry.failed)):
            if counts:
                listed = ", ".join(f"{code} {count:,}" for code, count in counts.items())
                console.print(f"{entry.view}, {entry.prompts}: {what}: {listed}", soft_wrap=True)


def _percent(share: Estimate | None) -> str:
    return "" if share is None else f"{share.value:.1%}"


def _area(share: Estimate | None) -> str:
    return "" if share is None else f"{share.value:.3f}"
