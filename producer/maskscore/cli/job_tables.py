"""Jobs, batches and results on stdout: tables for people, JSON Lines for scripts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import click
from rich.table import Table

from maskscore.cli.terminal import new_console
from maskscore.ledger import BatchCounts, JobStatus
from maskscore.schema import Component, JobResult
from maskscore.text import counted, one_line

__all__ = ["print_counts", "print_results", "print_statuses", "table"]


def print_counts(batch_id: str, counts: BatchCounts, *, as_json: bool) -> None:
    """Print the number of a batch's jobs in each state."""
    values = dataclasses.asdict(counts)
    if as_json:
        click.echo(json.dumps({"batch_id": batch_id, **values, "total": counts.total}))
        return
    some = [f"{count:,} {state}" for state, count in values.items() if count]
    click.echo(f"batch {batch_id}: {counted(counts.total, 'job')}: {', '.join(some)}")


def print_statuses(statuses: Iterable[JobStatus], *, as_json: bool) -> None:
    """Print the states of jobs."""
    if as_json:
        for status in statuses:
            fields = dataclasses.asdict(status)
            if status.progress is None:
                del fields["progress"]
            click.echo(json.dumps(fields, default=_jsonable))
        return
    statuses = list(statuses)
    shards = any(status.progress for status in statuses)
    rows = table("job", "state", "attempts", "submitted", *(["images", "masks", "parts"] if shards else []))
    for status in statuses:
        # Where there are counts, too, a line of 80 columns has no room for the year and the seconds.
        submitted = status.submitted_at.astimezone().strftime("%m-%d %H:%M" if shards else "%Y-%m-%d %H:%M:%S")
        progress = dataclasses.astuple(status.progress) if status.progress else ()
        counts = [f"{count:,}" for count in progress]
        rows.add_row(status.job_id, str(status.state), str(status.attempts), submitted, *counts)
    console = new_console()
    console.print(rows)
    for status in statuses:
        if status.error:
            console.print(one_line(f"{status.job_id}: {status.error.code}: {status.error.message}"), soft_wrap=True)


def print_results(results: Iterable[JobResult], *, as_json: bool) -> None:
    """Print the scores of jobs; as JSON, one result document per line."""
    for number, result in enumerate(results):
        if as_json:
            click.echo(result.model_dump_json())
            continue
        if number:
            click.echo()
        _print_result(result)


def _print_result(result: JobResult) -> None:
    console = new_console()
    about = f"job {result.job_id}: {result.state}"
    if result.image is not None:
        about += f", {result.image.uri} ({result.image.width} x {result.image.height})"
    if result.cached:
        about += f", {result.cached} of {len(result.components)} from the cache"
    if result.shard is not None:
        counts = result.shard.counts
        held = f"{counted(counts.images, 'image')} and {counted(counts.masks, 'mask')}"
        about += f", {held} in {counted(result.shard.parts, 'part')} below {result.shard.output_uri}"
    console.print(one_line(about), soft_wrap=True)
    if result.error is not None:
        console.print(one_line(f"{result.error.code}: {result.error.message}"), soft_wrap=True)
    for notice in result.warnings:
        console.print(one_line(f"warning: {notice.code}: {notice.message}"), soft_wrap=True)
    if not result.components:
        return
    by_class = any(component.head_class is not None for component in result.components)
    decided = ["p_keep", "keep", *(["class"] if by_class else [])] if result.head is not None else []
    rows = table("mask", *decided, "mult", "s_pos", "positive", "s_neg", "negative")
    for component in result.components:
        decision = _decision(component)[: len(decided)]
        rows.add_row(_name(component), *decision, *_cells(component))
    console.print(rows)


def _decision(component: Component) -> tuple[str, str, str]:
    if component.p_keep is None:
        return ("", "", "")
    return (f"{component.p_keep:.3f}", "keep" if component.keep else "drop", component.head_class or "")


def _cells(component: Component) -> tuple[str, ...]:
    if component.skipped is not None or component.s_pos is None or component.s_neg is None:
        return ("skip", "", component.skipped.code if component.skipped else "", "", "")
    multiplier = "" if component.semantic_multiplier is None else f"{component.semantic_multiplier:.1f}"
    return (
        multiplier,
        f"{component.s_pos:.3f}",
        component.s_pos_text or "",
        f"{component.s_neg:.3f}",
        component.s_neg_text or "",
    )


def _name(component: Component) -> str:
    return component.id if component.part is None else f"{component.id}/{component.part}"


def table(*columns: str) -> Table:
    """Return an empty table with these columns; counts and scores stand at the right."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        number = column in (
            "mult",
            "p_keep",
            "s_pos",
            "s_neg",
            "attempts",
            "retries",
            "jobs",
            "images",
            "masks",
            "parts",
        )
        rows.add_column(column, justify="right" if number else "left", no_wrap=column != "negative")
    return rows


def _jsonable(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value.isoformat()
