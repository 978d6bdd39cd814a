"""The output of ``run -o``: progress by images, and the summary."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import click

from maskscore.cli.run_output import failure_lines, left_out_lines, pairing_lines
from maskscore.cli.terminal import new_console
from maskscore.codes import advice_for
from maskscore.dataset import ShardProgressCounts, ShardRunSummary
from maskscore.schema import TarSource
from maskscore.text import counted, one_line

__all__ = ["ShardRunDisplay", "print_shard_summary", "print_tars"]

_EVERY_S = 10.0
_SHOWN = 10


class ShardRunDisplay:
    """Says how far a run is: at once, and every ten seconds."""

    def __init__(self) -> None:
        self._said: float | None = None

    def show(self, progress: ShardProgressCounts) -> None:
        """Say it on stderr, where it is time."""
        now = time.monotonic()
        if self._said is not None and now - self._said < _EVERY_S:
            return
        self._said = now
        shards = (
            f"{progress.ended:,} of {counted(progress.shards, 'shard')} ended"
            if progress.complete
            else f"{counted(progress.shards, 'shard')} submitted, {progress.ended:,} ended"
        )
        click.echo(
            f"maskscore: {shards}; {counted(progress.images, 'image')} and {counted(progress.masks, 'mask')} in "
            f"{counted(progress.parts, 'part')}",
            err=True,
        )
        if progress.trouble is not None:
            click.echo(f"maskscore: {progress.trouble}", err=True)


def print_tars(tars: list[TarSource], *, as_json: bool) -> None:
    """Print the tar files of a dry run."""
    if as_json:
        click.echo(json.dumps({"shards": len(tars), "tars": [tar.uri for tar in tars]}))
        return
    console = new_console()
    for tar in tars[:_SHOWN]:
        console.print(one_line(tar.uri), soft_wrap=True)
    if len(tars) > _SHOWN:
        console.print(f"... and {len(tars) - _SHOWN:,} more")
    console.print(f"{counted(len(tars), 'shard')} would be submitted.")


def print_shard_summary(summary: ShardRunSummary, *, as_json: bool) -> None:
    """Print the end of a run of shards."""
    if as_json:
        click.echo(json.dumps(summary.document()))
        return
    console = new_console()
    for line in _lines(summary):
        console.print(one_line(line), soft_wrap=True)


def _lines(summary: ShardRunSummary) -> Iterator[str]:
    progress, counts = summary.progress, summary.counts
    states = ", ".join(f"{count:,} {state}" for state, count in summary.states.items())
    yield f"batch {summary.batch_id}: {counted(progress.shards, 'shard')} into {summary.output_uri}"
    yield f"shards    {states}"
    failed = f", {counts.failed:,} failed: `code` in the table `images` says why" if counts.failed else ""
    yield f"images    {progress.images:,} in {counted(progress.parts, 'part')}{failed}"
    yield f"masks     {progress.masks:,}{f', {counts.skipped:,} skipped' if counts.skipped else ''}"
    if counts.others:
        yield f"others    {counted(counts.others, 'member')} that are neither images nor masks files"
    yield from left_out_lines(summary.left_out)
    if summary.pairing_counts is not None:
        yield from pairing_lines(summary.pairing_counts)
    for code, failures in [*summary.refused.items(), *summary.image_failures.items()]:
        yield from failure_lines(code, failures)
    for uri, failure in list(summary.failures.items())[:_SHOWN]:
        advice = advice_for(failure.code)
        yield f"{failure.code}: {uri}: {failure.message}{f' → {advice}' if advice else ''}"
    if len(summary.failures) > _SHOWN:
        yield f"... and {len(summary.failures) - _SHOWN:,} more"
    if progress.masks:
        yield ""
        yield f"Export: maskscore export {summary.output_uri} --format jsonl -o scores.jsonl --min-multiplier 1"
