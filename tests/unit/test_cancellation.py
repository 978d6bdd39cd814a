"""Waiting for a call that may be cancelled."""

from __future__ import annotations

import threading

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
