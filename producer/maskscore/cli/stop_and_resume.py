"""How a run is stopped by a signal, and the command that goes on with it."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stop", "command_to_resume", "stopped_by_signals"]


class Stop:
    """Which signal has asked for the end."""

    signal: int | None = None


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """Note the first Ctrl-C or SIGTERM, so that the jobs in hand are finished; the second one ends at once."""
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None:
            raise KeyboardInterrupt
        stop.signal = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command_to_resume(batch_id: str) -> str:
    """Return the command that was given, with what it takes to go on."""
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--retry-failed", "--no-follow")]
    if not any(argument.split("=")[0] == "--batch-id" for argument in arguments):
        arguments += ["--batch-id", batch_id]
    return shlex.join(["maskscore", *arguments, "--resume"])
