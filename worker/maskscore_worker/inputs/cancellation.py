"""Runs a blocking call, such as one to a slow object store, so that waiting for it can be cancelled."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["run_with_cancellation"]

Answer = TypeVar("Answer")

_EVERY_S = 0.25


def run_with_cancellation(call: Callable[[], Answer], check: Callable[[], None]) -> Answer:
    """Return what ``call`` returns, or raise what it raises; stop waiting when ``check`` raises.

    The call runs in a thread of its own, since a socket's timeout holds for each piece of an answer only. Threads
    cannot be stopped: a call that is given up ends by itself, and its answer is dropped.
    """
    answers: list[Answer] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    try:
        threading.Thread(target=run, name="cancellable-call", daemon=True).start()
    except RuntimeError as error:
        # The system gives no more threads just now, which Python says in no other way.
        raise OSError(errno.EAGAIN, str(error)) from error
    while not done.wait(_EVERY_S):
        check()
    if errors:
        raise errors[0]
    return answers[0]
