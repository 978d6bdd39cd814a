"""``top``: a live view of the queue and the workers."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from maskscore.broker import public_url
from maskscore.cli.keyboard import Keyboard
from maskscore.cli.tenants import tenant_cells
from maskscore.cli.terminal import new_console
from maskscore.client import Client, Overview, read_overview
from maskscore.errors import ServiceUnavailable
from maskscore.ledger import LiveWorker
from maskscore.schema import DEFAULT_MODEL_NAME
from maskscore.settings import ClientSettings
from maskscore.text import counted

__all__ = ["top_command"]

_MOST_MODELS: Final = 6
_WIDEST_MODEL: Final = 12
_MOST_TENANTS: Final = 5
_WIDEST_TENANT: Final = 20
_MOST_SHARDS: Final = 5
_WIDEST_SHARD: Final = 40


@click.command("top")
@click.option("--every", type=click.FloatRange(0.2), default=1.0, show_default=True, help="Seconds between readings.")
@click.option(
    "--minutes", type=click.IntRange(1, 60), default=10, show_default=True, help="How far back failures are counted."
)
@click.option("--once", is_flag=True, help="Print one reading and exit.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per reading, one per line.")
def top_command(every: float, minutes: int, once: bool, as_json: bool) -> None:
    """Show the queue, the workers and recent failures, live.

    q or Ctrl-C ends it.

    Where the output is no terminal, it prints one reading and ends; with --json, one line per reading until Ctrl-C.
    """
    console = new_console()
    with Client() as client:
        read = partial(read_overview, client, minutes=minutes)
        if as_json:
            _print_json(read, every, once=once)
        elif once or not console.is_terminal:
            console.print(_view(read(), client.settings, console.width))
        else:
            _show_live(read, client.settings, every, console)


def _print_json(read: Callable[[], Overview], every: float, *, once: bool) -> None:
    while True:
        click.echo(json.dumps(read().document()))
        if once:
            return
        time.sleep(every)


def _show_live(read: Callable[[], Overview], settings: ClientSettings, every: float, console: Console) -> None:
    last: Overview | None = None
    with Keyboard() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            trouble = None
            try:
                last = read()
            except ServiceUnavailable as error:
                trouble = str(error)
            live.update(_screen(last, trouble, settings, console), refresh=True)
            if keys.pressed("q", within_s=every):
                return


def _screen(last: Overview | None, trouble: str | None, settings: ClientSettings, console: Console) -> Group:
    parts: list[Text | Group] = []
    if trouble:
        parts.append(Text(f"{trouble}\n", style="bold red"))
    if last is not None:
        # The rows that do not fit are counted instead: the figures below the table must stay in sight.
        above = len(_models(last)) + _height_of(_tenants(last)) + _height_of(_shards(last))
        parts.append(_view(last, settings, console.width, most_workers=max(1, console.height - 11 - above)))
    parts.append(Text("\nq ends", style="dim"))
    return Group(*parts)


def _view(seen: Overview, settings: ClientSettings, width: int, most_workers: int | None = None) -> Group:
    return Group(
        Text(f"{public_url(settings.redis_url)}  {settings.namespace}", style="dim", no_wrap=True, overflow="ellipsis"),
        _queue(seen),
        *_models(seen),
        Text(""),
        *_tenants(seen),
        *_shards(seen),
        *_workers(seen, width, most_workers),
        Text(""),
        _failures(seen),
        _dead(seen),
    )


def _queue(seen: Overview) -> Text:
    backlog = seen.backlog
    line = Text("queue     ", style="bold").append(Text(style="not bold"))
    line.append(f"{backlog.waiting:,} waiting", style="not bold")
    if backlog.waiting:
        line.append(f", the oldest for {age(backlog.oldest_waiting_s)}", style="not bold")
    line.append(f" · {backlog.running:,} running · {backlog.delayed:,} delayed", style="not bold")
    return line


def _models(seen: Overview) -> list[Text]:
    """Return a line for each model, where there is more than the default one."""
    models = seen.models
    # Jobs without a worker first: somebody should do something about them.
    names = sorted(models, key=lambda name: (models[name][1] > 0, -models[name][0].waiting))
    wide = min(_WIDEST_MODEL, max((len(name) for name in names[:_MOST_MODELS]), default=0))
    lines: list[Text] = []
    for name in names[:_MOST_MODELS]:
        jobs, workers = models[name]
        line = Text("" if lines else "models", style="bold")
        line.pad_right(10 - len(line))
        counts = f"{jobs.waiting:,} waiting · {jobs.running:,} running · {jobs.delayed:,} delayed · "
        line.append(f"{_middle(name, wide):{wide}}  {counts}", style="not bold")
        lonely = not workers and jobs.waiting > 0
        line.append(counted(workers, "worker") if workers else "no worker", style="bold red" if lonely else "not bold")
        lines.append(line)
    if len(names) > _MOST_MODELS:
        lines.append(Text(f"          and {len(names) - _MOST_MODELS:,} more", style="dim"))
    return lines


def _tenants(seen: Overview) -> Iterator[Text | Table]:
    """Return the tenants that their limits hold up, and the largest; nothing for a single one without limits."""
    shown = seen.tenants(_MOST_TENANTS)
    others = shown.other_waiting, shown.other_running
    if not any(others) and len(shown.tenants) < 2 and not any(state.own or state.at_limits for state in shown.tenants):
        return
    rows = Table(box=None, pad_edge=False, header_style="bold dim", collapse_padding=True)
    rows.add_column("tenants", no_wrap=True)
    for name in ("queued", "running", "masks/s"):
        rows.add_column(name, justify="right", no_wrap=True)
    # The one column that may become narrower.
    rows.add_column("now")
    for state in shown.tenants:
        name, queued, running, rate, _, now = tenant_cells(state)
        reached = Text(now, no_wrap=True, overflow="ellipsis")
        style = "yellow" if state.at_limits else ""
        rows.add_row(_middle(name, _WIDEST_TENANT), queued, running, rate, reached, style=style)
    if any(others):
        rows.add_row("(others)", *(f"{count:,}" for count in others), style="dim")
    yield rows
    yield Text("")


def _shards(seen: Overview) -> Iterator[Text | Table]:
    """Return the shards that run, with what their parts hold; nothing where there are none."""
    if not seen.shards:
        return
    rows = Table(box=None, pad_edge=False, header_style="bold dim", collapse_padding=True)
    rows.add_column("shards", no_wrap=True)
    for name in ("images", "masks", "parts"):
        rows.add_column(name, justify="right", no_wrap=True)
    for status in seen.shards[:_MOST_SHARDS]:
        assert status.progress is not None
        counts = (f"{count:,}" for count in dataclasses.astuple(status.progress))
        rows.add_row(_middle(status.job_id, _WIDEST_SHARD), *counts)
    if len(seen.shards) > _MOST_SHARDS:
        rows.add_row(f"and {len(seen.shards) - _MOST_SHARDS:,} more", style="dim")
    yield rows
    yield Text("")


def _height_of(parts: Iterable[Text | Table]) -> int:
    return sum(part.row_count + 1 if isinstance(part, Table) else 1 for part in parts)


def _workers(seen: Overview, width: int, most: int | None) -> Iterator[Text | Table]:
    head = Text("workers   ", style="bold")
    if not seen.workers:
        waits = seen.backlog.waiting > 0
        head.append("none" + (", and jobs wait for one" if waits else ""), style="bold red" if waits else "not bold")
        yield head
        return
    head.append(
        f"{len(seen.workers):,} · {seen.in_flight:,} in flight · {seen.masks_per_s:,.1f} masks/s", style="not bold"
    )
    yield head
    shown = seen.workers[:most]
    gpus = any(worker.report.gpu_memory_total for worker in shown)
    models = any(worker.report.model != DEFAULT_MODEL_NAME for worker in seen.workers)
    rows = Table(box=None, pad_edge=False, header_style="dim", collapse_padding=True)
    rows.add_column("worker", no_wrap=True)
    if models:
        rows.add_column("model", no_wrap=True, overflow="ellipsis", max_width=_WIDEST_MODEL)
    for name in ("device", "in flight", "masks/s", "fill", *(("GPU", "memory") if gpus else ()), "masks", "seen"):
        rows.add_column(name, justify="left" if name == "device" else "right", no_wrap=True)
    widest = min(_WIDEST_MODEL, max(len(worker.report.model) for worker in shown)) + 1
    room = max(12, width - (60 if gpus else 46) - (max(6, widest) if models else 0))
    for worker in shown:
        rows.add_row(*_row(worker, room, gpus=gpus, model=models), style="yellow" if worker.late else "")
    yield rows
    if len(shown) < len(seen.workers):
        yield Text(f"and {len(seen.workers) - len(shown):,} more", style="dim")


def _row(worker: LiveWorker, room: int, *, gpus: bool, model: bool) -> list[str]:
    report = worker.report
    cells = [
        _middle(report.name, room),
        *([report.model] if model else []),
        report.device if report.state == "running" else "drains",
        f"{report.in_flight}/{report.concurrency}",
        f"{report.masks_per_s:,.1f}",
        f"{report.batch_fill:.0%}",
    ]
    if gpus:
        busy = "" if report.gpu_utilization is None else f"{report.gpu_utilization:.0%}"
        used, total = report.gpu_memory_used, report.gpu_memory_total
        cells += [busy, f"{used / 2**30:.0f}/{total / 2**30:.0f} GiB" if used is not None and total else ""]
    return [*cells, _short(report.masks_done), age(worker.age_s)]


def _failures(seen: Overview) -> Text:
    total = sum(seen.failures.values())
    line = Text("failed    ", style="bold")
    span = "minute" if seen.minutes == 1 else f"{seen.minutes} minutes"
    if not total:
        return line.append(f"none in the last {span}", style="not bold")
    line.append(f"{total:,} in the last {span}: ", style="red")
    return line.append(", ".join(f"{code} {count:,}" for code, count in seen.failures.items()), style="not bold")


def _dead(seen: Overview) -> Text:
    line = Text("dead      ", style="bold")
    if not seen.backlog.dead:
        return line.append("no dead letters", style="not bold")
    letters = "dead letter" if seen.backlog.dead == 1 else "dead letters"
    return line.append(f"{seen.backlog.dead:,} {letters}; `maskscore dead list` has the reasons", style="red")


def age(seconds: float) -> str:
    """Return a duration in its two largest units."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02} min"


def _short(count: int) -> str:
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if count >= limit:
            return f"{count / (1000 if unit == 'k' else limit):.1f}{unit}"
    return str(count)


def _middle(text: str, room: int) -> str:
    """Shorten in the middle: both ends of a pod's name say which it is."""
    if len(text) <= room:
        return text
    tail = (room - 1) * 2 // 3
    return f"{text[: room - 1 - tail]}…{text[-tail:]}"
