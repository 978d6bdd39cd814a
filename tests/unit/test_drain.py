"""Shutting down in time, and in a hurry."""

from __future__ import annotations

import threading

from maskscore_worker.jobs.shutdown import Drain


def test_the_end_of_the_grace_period_hurries() -> None:
    hurried = threading.Event()
    drain = Drain(0.01, hurried.set)
    drain.start()
    assert not drain.draining
    drain.request()
    assert drain.draining
    assert hurried.wait(60)
    assert not drain.pause(3600)


def test_a_second_request_hurries_before_the_grace_period_is_over() -> None:
    hurried = threading.Event()
    drain = Drain(3600, hurried.set)
    drain.start()
    drain.request()
    assert drain.pause(0.01)
    drain.request()
    assert hurried.wait(60)


def test_nothing_is_hurried_when_everything_has_ended_in_time() -> None:
    hurried = threading.Event()
    for requested in (False, True):
        drain = Drain(3600, hurried.set)
        drain.start()
        if requested:
            drain.request()
        drain.close()
    assert not hurried.is_set()
