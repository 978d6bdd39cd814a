"""Warnings about the workers: none is alive, or all have the demo model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from maskscore.client import Client
from maskscore.errors import ServiceUnavailable
from maskscore.prompts import demo_warning
from maskscore.schema import PromptSet

__all__ = ["warn_of_demo_model", "warn_without_worker"]

# What has ended already is read within the first second, and needs no worker.
_FIRST_S = 1.0
_EVERY_S = 5.0


@contextmanager
def warn_without_worker(client: Client, say: Callable[[str], None]) -> Iterator[None]:
    """Check every few seconds during the block whether a worker is alive; call ``say`` where none is.

    It is called once, and once more when a worker is alive again.
    """
    over = threading.Event()

    def look() -> None:
        lonely = False
        pause_s = _FIRST_S
        while not over.wait(pause_s):
            pause_s = _EVERY_S
            try:
                sentence = client.no_worker()
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


def warn_of_demo_model(client: Client, prompts: str | PromptSet) -> None:
    """Warn on stderr where all live workers have the demo model, and the prompts are not its own."""
    warning = demo_warning(prompts, (worker.report.weights_digest for worker in client.workers()))
    if warning:
        click.echo(f"maskscore: warning: {warning}", err=True)
