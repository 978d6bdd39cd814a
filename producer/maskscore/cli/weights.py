"""``weights list``, ``weights pull`` and ``weights check``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.table import Table

from maskscore.cli.job_tables import table
from maskscore.cli.optional_dependencies import needs_extra
from maskscore.cli.terminal import new_console
from maskscore.settings import WorkerSettings, load_settings
from maskscore.text import counted
from maskscore.worker_entry_points import worker_part

__all__ = ["weights_command"]

_FOLDER = click.Path(file_okay=False, path_type=Path)
_UNKNOWN: Final = "unknown"
# Columns, more than the longest row has.
_WIDE: Final = 400
# GFLOPs per crop, of which each budget's best is named: a few cores, many cores, a GPU.
_BUDGETS: Final = (10, 50, 200)
# What is unknown comes last.
_ORDERS: Final[dict[str, Callable[[Any], Any]]] = {
    "accuracy": lambda row: (row.imagenet is None, -(row.imagenet or 0), row.gflops),
    "gflops": lambda row: (row.gflops, -(row.imagenet or 0)),
    "parameters": lambda row: (row.mparams, -(row.imagenet or 0)),
    "name": lambda row: row.name.casefold(),
}


@click.group("weights")
def weights_command() -> None:
    """List pretrained weights, download them, and check a folder of weights."""


@weights_command.command("list")
@click.argument("name", required=False)
@click.option("--max-gflops", type=click.FloatRange(min=0), help="Only weights with at most this many GFLOPs per crop.")
@click.option(
    "--min-accuracy", type=click.FloatRange(0, 100), help="Only weights with at least this accuracy, in percent."
)
@click.option("--licence", help="Only weights whose licence contains this, such as mit; or `unknown`.")
@click.option("--sort", "order", type=click.Choice(list(_ORDERS)), default="accuracy", show_default=True, help="Order.")
@click.option("--wide", is_flag=True, help="Print one long line per entry, with more columns.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, for scripts.")
def list_command(
    name: str | None,
    max_gflops: float | None,
    min_accuracy: float | None,
    licence: str | None,
    order: str,
    wide: bool,
    as_json: bool,
) -> None:
    """List the pretrained weights that open_clip knows, and say which are best for their cost.

    NAME is a part of the architecture's name or tag. GFLOPs are those of one crop; accuracy is zero-shot top-1 on
    ImageNet-1k as open_clip publishes it, M are millions of parameters. Path `fast`: crops are made by maskscore's own
    code; `none`: no worker can serve it.
    """
    with needs_extra("worker"):
        rows: Sequence[Any] = worker_part("list-weights")()
    shown = sorted(
        (
            row
            for row in rows
            if (name is None or name.casefold() in row.name.casefold())
            and (max_gflops is None or row.gflops <= max_gflops)
            and (min_accuracy is None or (row.imagenet is not None and 100 * row.imagenet >= min_accuracy))
            and (licence is None or licence.casefold() in (row.licence or _UNKNOWN))
        ),
        key=_ORDERS[order],
    )
    best = _recommended(shown, max_gflops)
    if as_json:
        for row in shown:
            budgets = [budget for budget, found in best.items() if found is row]
            facts = {**dataclasses.asdict(row), "path": row.path, "best_under_gflops": budgets}
            click.echo(json.dumps(facts))
        return
    console = new_console()
    if wide:
        console.width = _WIDE
    console.print(_wide_table(shown) if wide else _table(shown))
    _say_more(shown, best)


def _recommended(rows: Iterable[Any], max_gflops: float | None) -> dict[float, Any]:
    """Return the most accurate that can be served, by the GFLOPs per crop that are to be spent at most."""
    known = [row for row in rows if row.imagenet is not None and row.path != "none"]
    best = {}
    for budget in _BUDGETS if max_gflops is None else (max_gflops,):
        within = [row for row in known if row.gflops <= budget]
        if within:
            best[budget] = max(within, key=lambda row: (row.imagenet, -row.gflops))
    return best


def _say_more(shown: Sequence[Any], best: dict[float, Any]) -> None:
    unknown = sum(row.imagenet is None for row in shown)
    console = new_console()
    console.print()
    console.print(
        f"{counted(len(shown), 'model')}; of {unknown} open_clip publishes no accuracy. Licences are those found in "
        "publications; read the model card before you rely on one."
    )
    for budget, row in best.items():
        facts = f"{100 * row.imagenet:.1f} %, {row.gflops:g} GFLOPs, licence {row.licence or _UNKNOWN}"
        console.print(f"Best under {budget:g} GFLOPs: {row.name} ({facts})", soft_wrap=True)
    if best:
        console.print(f"Fetch one: maskscore weights pull {list(best.values())[-1].name} DIR", soft_wrap=True)


def _table(rows: Iterable[Any]) -> Table:
    grid = table("model", "M", "GFLOPs", "IN-1k %", "resize", "licence", "path")
    grid.padding = (0, 1, 0, 0)
    # Names are folded, not cut off, so that they can be copied whole from a terminal of 80 columns.
    grid.columns[0].no_wrap, grid.columns[0].overflow = False, "fold"
    _align(grid)
    for row in rows:
        grid.add_row(row.name, *_cells(row))
    return grid


def _wide_table(rows: Iterable[Any]) -> Table:
    columns = ("architecture", "tag", "M", "GFLOPs", "IN-1k %", "resize", "licence", "path", "hub", "preprocessing")
    grid = table(*columns)
    _align(grid)
    for row in rows:
        grid.add_row(row.architecture, row.tag, *_cells(row), row.hub, str(row.preprocessing))
    return grid


def _align(grid: Table) -> None:
    for column in grid.columns:
        if column.header in ("M", "GFLOPs", "IN-1k %"):
            column.justify = "right"


def _cells(row: Any) -> tuple[str, ...]:
    accuracy = _UNKNOWN if row.imagenet is None else f"{100 * row.imagenet:.1f}"
    numbers = f"{row.mparams:.0f}", f"{row.gflops:.0f}", accuracy
    return *numbers, row.preprocessing.resize_mode, row.licence or _UNKNOWN, row.path


@weights_command.command("pull")
@click.argument("arguments", nargs=-1, required=True, metavar="[NAME[:TAG]] DIR")
@click.option("--repo", help="Repository on the Hugging Face hub, instead of a name.")
@click.option("--revision", help="Branch, tag or commit of it.")
def pull_command(arguments: tuple[str, ...], repo: str | None, revision: str | None) -> None:
    """Download weights from the Hugging Face hub into DIR; resumes an interrupted download.

    NAME is an architecture of open_clip's, TAG one of its weights (`maskscore weights list`); without them it is
    ViT-B-32:laion2b_s34b_b79k. With the weights come their configuration and, where they have one of their own, their
    tokenizer.
    """
    if len(arguments) > 2:
        raise click.UsageError(f"at most NAME[:TAG] and DIR are expected, not {len(arguments)} arguments")
    folder, name = Path(arguments[-1]), arguments[0] if len(arguments) == 2 else None
    if name and repo:
        raise click.UsageError("NAME and --repo exclude each other")
    with needs_extra("worker"):
        pull = worker_part("pull-weights")
    pulled = pull(folder, model=name, repo=repo, revision=revision)
    click.echo(f"{folder}: {pulled.digest}, as the hub says")
    if pulled.row is not None:
        click.echo(f"{pulled.row.name}, licence {pulled.row.licence or _UNKNOWN}; {pulled.row.preprocessing}")
        if pulled.row.path == "none":
            click.echo("maskscore: no worker can serve it: its text tower is defined on a hub", err=True)


@weights_command.command("check")
@click.argument("folder", type=_FOLDER)
@click.option("--model", help="Architecture, where the folder names none.  [MASKSCORE_MODEL; default: ViT-B-32]")
@click.option("--pretrained", help="Tag of the weights, where the folder has no configuration.  [MASKSCORE_PRETRAINED]")
@click.option("--precision", is_flag=True, help="Also measure what each precision of the device does to the scores.")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of photos for --precision.  [default: scikit-image's]",
)
@click.option("--json", "as_json", is_flag=True, help="JSON, for scripts.")
def check_command(
    folder: Path, model: str | None, pretrained: str | None, precision: bool, images: Path | None, as_json: bool
) -> None:
    """Load FOLDER's weights as a worker would and say what they are, or all that is missing.

    --precision scores the same crops of real photos in each precision that the device has (MASKSCORE_DEVICE), with the
    prompts of MASKSCORE_PROMPTS, and compares the probabilities with those in fp32: at the weights' own logit scale,
    and at that of released CLIPs, 100. It takes some minutes with large models on a CPU.
    """
    if images is not None and not precision:
        raise click.UsageError("--images needs --precision")
    settings = load_settings(WorkerSettings, model=model, pretrained=pretrained)
    with needs_extra("worker"):
        check = worker_part("check-weights")
    report = check(settings.model_copy(update={"weights": folder}), precisions=precision, images=images)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), default=str))
        return
    rows = {
        "file": report.file,
        "size": f"{report.size:,} bytes",
        "digest": report.digest,
        "architecture": report.architecture,
        **{name.replace("_", " "): value for name, value in report.details.items()},
        "fast path": f"on {report.device}, {_fast_path(report.stepped_down)}",
    }
    for name, value in rows.items():
        click.echo(f"{name:<18} {f'{value:,}' if isinstance(value, int) else value}")
    if report.warning is not None:
        click.echo(f"warning: crops are slow: {report.warning}", err=True)
    for part, why in report.stepped_down.items():
        click.echo(f"warning: {part}: the plain path is taken: {why}", err=True)
    if report.precisions is not None:
        _print_precisions(report.precisions)
    click.echo("The weights fit.")


def _print_precisions(measured: Any) -> None:
    grid = table("precision", "masks/s", "logit scale", "largest", "> 0.01", "> 0.03", "multipliers")
    for column in grid.columns[1:]:
        column.justify = "right"
    for row in measured.precisions:
        speed = f"{row.masks_per_second:,.1f}"
        cells = [
            (
                f"{found.logit_scale:.1f}",
                f"{found.largest:.4f}",
                *(f"{100 * count / measured.crops:.1f} %" for count in (found.above_0_01, found.above_0_03)),
                f"{found.multipliers:,}",
            )
            for found in row.differences
        ] or [("", "", "", "", "")]
        for number, some in enumerate(cells):
            grid.add_row(*(("", "") if number else (row.precision, speed)), *some)
    console = new_console()
    console.print()
    console.print(grid)
    console.print(
        f"Differences of probabilities from fp32, over {counted(measured.crops, 'crop')} of {measured.photos}, with "
        f"the prompts {measured.prompts!r}: the largest, the shares of crops with one above 0.01 and 0.03, and how "
        "many multipliers change. masks/s are of the forward alone."
    )
    for row in measured.precisions:
        if row.why:
            console.print(f"{row.precision} is served as {row.served}: {row.why}.")


def _fast_path(stepped_down: Iterable[str]) -> str:
    parts = ", ".join(sorted(stepped_down))
    return f"stepped down in {parts}" if parts else "its values are those of the plain path"
