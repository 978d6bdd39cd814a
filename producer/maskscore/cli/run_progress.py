"""The progress of ``run`` on stderr: a live line on a terminal, else a line every ten seconds."""

from __future__ import annotations

import time
from typing import Any

import click
from rich.progress import BarColumn, Progress

from maskscore.cli.terminal import new_console, text_column
from maskscore.dataset import Progress as RunState

__all__ = ["RunProgress", "rate", "time_left"]

_PLAIN_EVERY_S = 10.0


class RunProgress:
    """Shows the listing, then the jobs. A context manager; closing it twice is fine."""

    def __init__(self) -> None:
        self._console = new_console(stderr=True)
        self._live = self._console.is_terminal
        self._last = time.monotonic()
        self._said = False
        columns = (text_column("{task.description}"), BarColumn(bar_width=None), text_column("{task.fields[text]}"))
        self._progress = Progress(*columns, console=self._console, transient=True, disable=not self._live)
        self._bar = self._progress.add_task("listing", total=None, text="")

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Take the live line away."""
        self._progress.stop()

    def listing(self, files: int) -> None:
        """Show how many files were seen."""
        self._show("listing", f"{files:,} files", completed=0, total=None)

    def show(self, state: RunState) -> None:
        """Show the jobs."""
        ended, submitted = state.counts.ended, state.counts.total
        if state.trouble:
            self._show("waiting", state.trouble, completed=ended, total=state.total)
            return
        parts = [f"{ended:,} of {state.total:,}"]
        if submitted < state.total:
            parts.append("queue full" if state.submitted.waiting_for_room else f"{submitted:,} submitted")
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
        if sentence and not self._said:
            self._said = True
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
