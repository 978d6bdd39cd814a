"""Warnings about the workers: none is alive, none serves a model, or all have the demo model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import click

from maskscore.client import PAGE, Client
from maskscore.errors import ServiceUnavailable
from maskscore.prompts import demo_warning
from maskscore.schema import DEFAULT_MODEL_NAME, PromptSet

__all__ = ["warn_of_workers", "warn_without_worker"]

# What has ended already is read within the first second, and needs no worker.
_FIRST_S = 1.0
_EVERY_S = 5.0


@contextmanager
def warn_without_worker(client: Client, say: Callable[[str], None], of: Iterable[str] = ()) -> Iterator[None]:
    """Check every few seconds during the block whether a worker is alive; call ``say`` where none is.

    With the ids ``of`` jobs, each of their models needs a worker; see :meth:`maskscore.Client.no_worker`.
    It is called once, and once more when a worker is alive again.
    """
    over = threading.Event()

    def look() -> None:
        lonely = False
        pause_s = _FIRST_S
        ids: list[str] | None = None
        while not over.wait(pause_s):
            pause_s = _EVERY_S
            try:
                ids = list(islice(of, PAGE)) if ids is None else ids
                sentence = client.no_worker(of=ids)
            except ServiceUnavailable:  # whoever waits is told of that, and this thread need not say it
                continue
            if sentence and not lonely:
                say(sentence)
            elif lonely and not sentence:
                say("A worker is alive now.")
            lonely = sentence is not None

    thread = threading.Thread(target=look, name="worker-notice", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def warn_of_workers(client: Client, model: str | None, prompts: str | PromptSet | None = None) -> bool:
    """Warn on stderr of what jobs for a model (``None``: the default one) will meet; return whether no worker is one.

    That is no live worker that serves it, where it was asked for or others are alive, or the demo model on all that do
    and ``prompts`` that are not its own.
    """
    workers = client.workers()
    serving = [worker.report for worker in workers if worker.report.model == (model or DEFAULT_MODEL_NAME)]
    no_worker = client.no_worker(model) if not serving and (workers or model is not None) else None
    warnings = [no_worker]
    if prompts is not None:
        warnings.append(demo_warning(prompts, (report.weights_digest for report in serving)))
    for warning in filter(None, warnings):
        click.echo(f"maskscore: warning: {warning}", err=True)
    return no_worker is not None
