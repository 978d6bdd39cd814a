"""Signal handling: Ctrl-C in background commands, and deferring signals while a child process is started or ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Pending = list[tuple[int, FrameType | None]]


def enable_interrupts() -> None:
    """Let SIGINT raise :class:`KeyboardInterrupt` also where the parent ignores it.

    A shell without job control starts a command in the background with SIGINT ignored, and Python leaves that as it
    is. A command that runs until Ctrl-C would then have no end but SIGTERM.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def deferred_signals() -> Iterator[Pending]:
    """Defers the Python handlers of SIGINT and SIGTERM to the end of the block; yields what has arrived.

    Handlers that Python does not own (default action, ignored, set from C) are left as they are. Outside the
    main thread nothing is done: Python never runs handlers there.
    """
    pending: Pending = []
    if threading.current_thread() is not threading.main_thread():
        yield pending
        return

    handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
    holding = True

    def hold(number: int, frame: FrameType | None) -> None:
        # Should a signal interrupt the restoring below, this handler stays in place and must be transparent.
        if holding:
            pending.append((number, frame))
        else:
            handlers[number](number, frame)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                handlers[number] = handler
                signal.signal(number, hold)
        yield pending
    finally:
        holding = False
        for held, handler in handlers.items():
            signal.signal(held, handler)
        for arrived, frame in pending:
            handlers[arrived](arrived, frame)
