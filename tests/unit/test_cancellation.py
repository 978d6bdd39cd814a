"""Waiting for a call that may be cancelled."""

from __future__ import annotations

import threading
import weakref

import pytest

from maskscore_worker.inputs.cancellation import run_with_cancellation


def nothing() -> None:
    return None


def test_the_answer_and_the_error_come_through() -> None:
    assert run_with_cancellation(lambda: 7, nothing) == 7
    with pytest.raises(ZeroDivisionError):
        run_with_cancellation(lambda: 1 / 0, nothing)


def test_a_call_that_does_not_end_is_given_up_when_the_check_says_so() -> None:
    never, asked = threading.Event(), []

    def check() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise TimeoutError("it takes too long")

    with pytest.raises(TimeoutError, match="too long"):
        run_with_cancellation(never.wait, check)
    never.set()


def test_a_thread_serves_one_call_after_another_but_none_beside_one_that_was_given_up() -> None:
    first = run_with_cancellation(threading.get_ident, nothing)
    assert run_with_cancellation(threading.get_ident, nothing) == first
    never, taken = threading.Event(), []

    def hang() -> None:
        taken.append(threading.get_ident())
        never.wait()

    def give_up() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        run_with_cancellation(hang, give_up)
    assert run_with_cancellation(threading.get_ident, nothing) not in taken
    never.set()


def test_what_was_read_is_not_kept_by_the_thread() -> None:
    class Large:
        """An object that can be watched."""

    kept = weakref.ref(run_with_cancellation(Large, nothing))
    # The thread drops its own reference after it has answered.
    for _ in range(1000):
        if kept() is not None:
            run_with_cancellation(nothing, nothing)
    assert kept() is None
