"""Progress of waiting for jobs, and of ``run``, on stderr: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from maskscore.cli.batch_or_job import PartsNamed
from maskscore.cli.terminal import new_console, text_column
from maskscore.cli.worker_warnings import warn_without_worker
from maskscore.client import Client
from maskscore.export import Parts
from maskscore.schema import JobResult
from maskscore.text import counted

if TYPE_CHECKING:
    from maskscore.dataset import RunProgress

__all__ = [
    "RunProgressDisplay",
    "ShownTogether",
    "rate",
    "shown_parts",
    "shown_progress",
    "shown_together",
    "time_left",
    "wait_for",
]

T = TypeVar("T")


class ShownTogether(Protocol):
    """Shows the progress of one of several things."""

    def __call__(self, items: Iterable[T], total: int, doing: str, noun: str) -> Iterator[T]:
        """Yield the items, and show how many of ``total`` there were; ``noun`` is what people call one of them."""
        ...


_PLAIN_EVERY_S: Final = 10.0
# Drawing happens in this process, and nothing else shows that it works: its first line comes at once.
_DRAWING: Final = "drawing"


def shown_progress(
    jobs: Iterable[T],
    total: int,
    *,
    doing: str = "waiting",
    noun: str = "job",
    client: Client | None = None,
    of: Iterable[str] = (),
) -> Iterator[T]:
    """Yield the items of ``jobs`` and show progress on stderr: a bar on a terminal, else a line every ten seconds.

    ``noun`` is what people call one of them. With a ``client``, a warning is printed while no worker is alive that
    serves the jobs ``of`` these ids.
    """
    console = new_console(stderr=True)

    def say(sentence: str) -> None:
        console.print(f"maskscore: {sentence}", soft_wrap=True)

    with warn_without_worker(client, say, of) if client else nullcontext(), shown_together(console) as shown:
        yield from shown(jobs, total, doing, noun)


def _with_lines(console: Console, items: Iterable[T], total: int, doing: str, noun: str) -> Iterator[T]:
    said = time.monotonic()
    if doing == _DRAWING:
        console.print(f"maskscore: {doing} {counted(total, noun)}", soft_wrap=True)
    for done, item in enumerate(items, 1):
        yield item
        if (now := time.monotonic()) - said >= _PLAIN_EVERY_S:
            said = now
            console.print(f"maskscore: {doing}: {done:,} of {counted(total, noun)}", soft_wrap=True)


@contextmanager
def shown_together(console: Console | None = None) -> Iterator[ShownTogether]:
    """Provide what :func:`shown_progress` does for several things that are read in turns: a bar for each."""
    console = console or new_console(stderr=True)
    if not console.is_terminal:
        yield partial(_with_lines, console)
        return
    columns = (
        text_column("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        text_column("{task.fields[noun]}s"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:

        def show(items: Iterable[T], total: int, doing: str, noun: str) -> Iterator[T]:
            bar = progress.add_task(doing, total=total, noun=noun)
            for item in items:
                progress.advance(bar)
                yield item
            progress.remove_task(bar)

        yield show


@contextmanager
def shown_parts(parts: PartsNamed) -> Iterator[Parts]:
    """Provide the parts, and show on stderr what is read of them: a bar on a terminal, else lines of the listing."""
    console = new_console(stderr=True)
    if not console.is_terminal:
        listing = partial(_with_lines, console, doing="listing", noun="part")
        yield Parts(parts.place, listing=listing, without_result=parts.codes)
        return
    columns = (text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("filtering", total=None)

        def show(masks: int, total: int) -> None:
            progress.update(bar, description="masks read", completed=masks, total=total)

        def list_parts(files: Iterable[T], total: int) -> Iterator[T]:
            for number, file in enumerate(files, 1):
                progress.update(bar, description="parts listed", completed=number, total=total)
                yield file
            progress.update(bar, description="reading", completed=0, total=None)

        yield Parts(parts.place, progress=show, listing=list_parts, without_result=parts.codes)


def wait_for(client: Client, ids: list[str], timeout: float | None) -> list[JobResult]:
    """Wait for the jobs, with a bar, and return the results in the order of the ids."""
    handles = [client.handle(job_id) for job_id in ids]
    ended = {
        result.job_id: result
        for result in shown_progress(client.as_completed(handles, timeout=timeout), len(ids), client=client, of=ids)
    }
    return [ended[job_id] for job_id in ids]


class RunProgressDisplay:
    """Shows the listing of a run, then its jobs. A context manager; closing it twice is fine."""

    def __init__(self) -> None:
        self._console = new_console(stderr=True)
        self._live = self._console.is_terminal
        self._last = time.monotonic()
        self._said_full = False
        self.said_no_worker = False
        """Whether it was said that no worker does these jobs, which is said once."""
        columns = (text_column("{task.description}"), BarColumn(bar_width=None), text_column("{task.fields[text]}"))
        self._progress = Progress(*columns, console=self._console, transient=True, disable=not self._live)
        self._bar = self._progress.add_task("listing", total=None, text="")

    def __enter__(self) -> RunProgressDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Take the live line away."""
        self._progress.stop()

    def listing(self, files: int) -> None:
        """Show how many files were seen."""
        self._show("listing", counted(files, "file"), completed=0, total=None)

    def show(self, state: RunProgress) -> None:
        """Show the jobs."""
        ended, submitted = state.counts.ended, state.counts.total
        if state.trouble:
            self._show("waiting", state.trouble, completed=ended, total=state.total)
            return
        parts = [f"{ended:,} of {state.total:,}"]
        if submitted < state.total:
            parts.append("queue full" if state.submitted.waiting_for_room else f"{submitted:,} submitted")
            if state.submitted.waiting_for_room and not self._said_full:
                self._said_full = True
                self._say(f"waiting for room in the queue: {state.submitted.waiting_for_room}")
        bad = state.counts.failed + state.counts.expired + state.counts.cancelled + state.submitted.refused_count
        if bad:
            parts.append(f"{bad:,} failed" + (f" ({state.most_failed})" if state.most_failed else ""))
        if state.per_s == 0 and state.counts.queued and not state.counts.running:
            parts.append("waiting for a worker (see: maskscore top)")
            self._say_once(state.no_worker)
        elif state.per_s:
            parts += [rate(state.per_s), time_left(state.left_s)]
        self._show("scoring", " · ".join(parts), completed=ended, total=state.total)

    def _say_once(self, sentence: str | None) -> None:
        if sentence and not self.said_no_worker:
            self.said_no_worker = True
            self._say(sentence)

    def _say(self, sentence: str) -> None:
        self._console.print(f"maskscore: {sentence}", soft_wrap=True, markup=False, highlight=False)

    def _show(self, what: str, text: str, *, completed: int, total: int | None) -> None:
        if self._live:
            self._progress.update(self._bar, description=what, text=text, completed=completed, total=total)
            return
        now = time.monotonic()
        if now - self._last > _PLAIN_EVERY_S:
            self._last = now
            click.echo(f"maskscore: {what}: {text}", err=True)


def rate(per_s: float) -> str:
    """Return images per second, with as many digits as mean something."""
    return f"{per_s:,.0f}/s" if per_s >= 10 else f"{per_s:.1f}/s"


def time_left(seconds: float | None) -> str:
    """Return the time left in its two largest units."""
    if seconds is None:
        return "time left unknown"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s left"
    if whole < 3600:
        return f"{whole // 60} min left"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min left"
