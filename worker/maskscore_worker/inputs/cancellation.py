"""Runs a blocking call, such as one to a slow object store, so that waiting for it can be cancelled."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

__all__ = ["run_with_cancellation"]

Answer = TypeVar("Answer")

_EVERY_S: Final = 0.25

# A call, and where its answer or its error goes.
_Answers = SimpleQueue[tuple[Any, BaseException | None]]
_Inbox = SimpleQueue[tuple[Callable[[], Any], _Answers]]

# Threads that have nothing to do. To start one per call takes four times the processor time, 0.16 ms.
_idle: Final[list[_Inbox]] = []
_MOST_IDLE: Final = 64


def run_with_cancellation(call: Callable[[], Answer], check: Callable[[], None]) -> Answer:
    """Return what ``call`` returns, or raise what it raises; stop waiting when ``check`` raises.

    The call runs in another thread, since a socket's timeout holds for each piece of an answer only. Threads cannot be
    stopped: a call that is given up ends by itself, and its answer is dropped.
    """
    answers: _Answers = SimpleQueue()
    try:
        inbox = _idle.pop()
    except IndexError:
        inbox = _start_thread()
    inbox.put((call, answers))
    while True:
        try:
            answer, error = answers.get(timeout=_EVERY_S)
            break
        except Empty:
            check()
    if error is not None:
        raise error
    found: Answer = answer
    return found


def _start_thread() -> _Inbox:
    inbox: _Inbox = SimpleQueue()
    try:
        threading.Thread(target=_serve, args=(inbox,), name="cancellable-calls", daemon=True).start()
    except RuntimeError as error:
        # The system gives no more threads just now, which Python says in no other way.
        raise OSError(errno.EAGAIN, str(error)) from error
    return inbox


def _serve(inbox: _Inbox) -> None:
    while True:
        call, answers = inbox.get()
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = call(), None
        except BaseException as error:
            outcome = None, error
        stays = len(_idle) < _MOST_IDLE
        if stays:
            _idle.append(inbox)
        answers.put(outcome)
        # Until the next call this thread would keep what was read.
        del call, answers, outcome
        if not stays:
            return
