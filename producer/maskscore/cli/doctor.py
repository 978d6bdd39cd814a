"""``doctor``: examine a deployment from here, and say what to do."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from maskscore.cli.exit_codes import Exit
from maskscore.cli.terminal import new_console
from maskscore.cli.worker import with_demo_model
from maskscore.doctor import Cause, Finding, Verdict, examine, read_settings
from maskscore.text import counted

__all__ = ["doctor_command"]

_COLOURS: Final = {
    Verdict.OK: "green",
    Verdict.WARNING: "yellow",
    Verdict.FAILED: "bold red",
    Verdict.SKIPPED: "dim",
}
_EXITS: Final = {
    Cause.UNAVAILABLE: Exit.UNAVAILABLE,
    Cause.SETTINGS: Exit.WRONG_INPUT,
    Cause.DEPLOYMENT: Exit.NOT_SUCCEEDED,
}
_VERDICT_WIDTH: Final = 9
_NAME_WIDTH: Final = 17
_INDENT: Final = _VERDICT_WIDTH + _NAME_WIDTH
_LEAST_WIDTH: Final = 30


@click.command("doctor")
@click.option(
    "--worker/--no-worker",
    "as_worker",
    default=None,
    help="Examine what a worker on this machine needs, too.  [default: where PyTorch is installed and weights are set]",
)
@click.option("--weights", type=click.Path(path_type=Path), help="Weights folder.  [MASKSCORE_WEIGHTS]")
@click.option("--device", help="Device of the worker.  [MASKSCORE_DEVICE]")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds to wait for each answer.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def doctor_command(
    as_worker: bool | None, weights: Path | None, device: str | None, timeout: float, as_json: bool
) -> None:
    """Check a deployment, and print advice for what is wrong.

    Examines the settings, Redis, S3, the clocks, the installed releases and, on a worker's machine, its device and
    weights. Writes nothing but a tiny object to each result bucket, which it removes again. Exits with 0 when nothing
    failed.
    """
    settings, wrong = read_settings(weights=weights, device=device)
    settings = with_demo_model(settings)
    console = new_console()
    seen: list[Finding] = []
    with _shown_step(console, as_json=as_json) as begun:
        for finding in chain(wrong, examine(settings, timeout_s=timeout, as_worker=as_worker, begun=begun)):
            seen.append(finding)
            if as_json:
                click.echo(json.dumps(dataclasses.asdict(finding)))
            else:
                console.print(_row(finding, console.width), soft_wrap=True)
    if not as_json:
        console.print(_summary(seen))
    causes = {finding.cause for finding in seen}
    for cause, code in _EXITS.items():
        if cause in causes:
            sys.exit(code)


@contextmanager
def _shown_step(console: Console, *, as_json: bool) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is being examined."""
    if as_json or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as status:
        yield lambda name: status.update(f"{name} ...")


def _row(finding: Finding, width: int) -> Text:
    """Return one row of the table, at most ``width`` columns wide where that can be; rows are printed one by one."""
    said = Text(finding.sentence)
    if finding.advice:
        said.append(f"\n→ {finding.advice}", style="bold")
    lines = said.wrap(Console(), max(_LEAST_WIDTH, width - _INDENT), overflow="fold")
    for line in lines:
        line.rstrip()
    row = Text(f"{finding.verdict:<{_VERDICT_WIDTH}}", style=_COLOURS[finding.verdict])
    row = Text().append_text(row).append(f"{finding.name:<{_NAME_WIDTH}}")
    return row.append_text(Text("\n" + " " * _INDENT).join(lines))


def _summary(findings: Iterable[Finding]) -> Text:
    counts = Counter(finding.verdict for finding in findings)
    warnings = counted(counts[Verdict.WARNING], "warning")
    parts = [
        (f"{counts[Verdict.FAILED]} failed", Verdict.FAILED),
        (warnings, Verdict.WARNING),
        (f"{counts[Verdict.OK]} ok", Verdict.OK),
        (f"{counts[Verdict.SKIPPED]} skipped", Verdict.SKIPPED),
    ]
    line = Text("\n")
    for number, (text, verdict) in enumerate(parts):
        line.append(", " if number else "")
        line.append(text, style=_COLOURS[verdict] if counts[verdict] else "")
    return line.append(".")
