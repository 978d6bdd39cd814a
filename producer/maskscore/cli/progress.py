"""Progress of waiting for jobs on stderr: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from maskscore.cli.terminal import new_console, text_column
from maskscore.cli.worker_warnings import warn_without_worker
from maskscore.client import Client
from maskscore.schema import JobResult

__all__ = ["shown_progress", "wait_for"]

T = TypeVar("T")
_PLAIN_EVERY_S: Final = 10.0
# Drawing happens in this process, and nothing else shows that it works: its first line comes at once.
_DRAWING: Final = "drawing"


def shown_progress(
    jobs: Iterable[T], total: int, *, doing: str = "waiting", client: Client | None = None
) -> Iterator[T]:
    """Yield the items of ``jobs`` and show progress on stderr: a bar on a terminal, else a line every ten seconds.

    With a ``client``, a warning is printed while no worker is alive.
    """
    console = new_console(stderr=True)

    def say(sentence: str) -> None:
        console.print(f"maskscore: {sentence}", soft_wrap=True)

    with warn_without_worker(client, say) if client else nullcontext():
        yield from _with_bar(console, jobs, total, doing)


def _with_bar(console: Console, jobs: Iterable[T], total: int, doing: str) -> Iterator[T]:
    if not console.is_terminal:
        yield from _with_lines(console, jobs, total, doing)
        return
    columns = (text_column(doing), BarColumn(), MofNCompleteColumn(), text_column("jobs"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("jobs", total=total)
        for job in jobs:
            progress.advance(bar)
            yield job


def _with_lines(console: Console, jobs: Iterable[T], total: int, doing: str) -> Iterator[T]:
    said = time.monotonic()
    if doing == _DRAWING:
        console.print(f"maskscore: {doing} {total:,} jobs", soft_wrap=True)
    for done, job in enumerate(jobs, 1):
        yield job
        if (now := time.monotonic()) - said >= _PLAIN_EVERY_S:
            said = now
            console.print(f"maskscore: {doing}: {done:,} of {total:,} jobs", soft_wrap=True)


def wait_for(client: Client, ids: list[str], timeout: float | None) -> list[JobResult]:
    """Wait for the jobs, with a bar, and return the results in the order of the ids."""
    handles = [client.handle(job_id) for job_id in ids]
    ended = {
        result.job_id: result
        for result in shown_progress(client.as_completed(handles, timeout=timeout), len(ids), client=client)
    }
    return [ended[job_id] for job_id in ids]
