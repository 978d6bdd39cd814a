"""Whoever waits for jobs while no worker is alive is told so, on stderr."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from maskscore.client import Client
from maskscore.errors import ServiceUnavailable
from maskscore.prompts import demo_warning
from maskscore.schema import PromptSet

__all__ = ["warn_of_demo_model", "worker_notice"]

# What has ended already is read within the first second, and needs no worker.
_FIRST_S = 1.0
_EVERY_S = 5.0


@contextmanager
def worker_notice(client: Client, say: Callable[[str], None]) -> Iterator[None]:
    """Look now and then, for the length of the block, whether a worker is alive; ``say`` it where none is.

    It is said once, and once more when a worker has come.
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
    """Say on stderr where all workers that are alive have the demo model, and the prompts are not those it knows."""
    warning = demo_warning(prompts, (worker.line.weights_digest for worker in client.workers()))
    if warning:
        click.echo(f"maskscore: warning: {warning}", err=True)
