"""The grace period of a shutdown, and what ends it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import redis

from maskscore.ledger import Ledger
from maskscore_worker.jobs.leases import Leases
from maskscore_worker.jobs.shutdown import Shutdown


def shutdown_of(grace_s: float, ended: Callable[[int], object]) -> Shutdown:
    ledger = Ledger(redis.Redis(), namespace="none", ttl_s=60)
    leases = Leases(ledger, lease_s=60, timeout_s=60)
    return Shutdown(
        ledger,
        leases,
        grace_s=grace_s,
        claim_timeout_s=60,
        exit_process=ended,
    )


class Exit:
    def __init__(self) -> None:
        self.called = threading.Event()
        self.code: int | None = None

    def __call__(self, code: int) -> None:
        self.code = code
        self.called.set()


def test_the_process_ends_with_the_grace_period() -> None:
    ended = Exit()
    shutdown = shutdown_of(0.01, ended)
    shutdown.start()
    assert not shutdown.draining
    shutdown.request()
    assert shutdown.draining
    assert ended.called.wait(60)
    assert ended.code == 0
    assert not shutdown.pause(3600)


def test_a_second_request_ends_the_grace_period() -> None:
    ended = Exit()
    shutdown = shutdown_of(3600, ended)
    shutdown.start()
    shutdown.request()
    assert shutdown.pause(0.01)
    shutdown.request()
    assert ended.called.wait(60)


def test_the_process_is_not_ended_when_everything_has_finished_in_time() -> None:
    ended = Exit()
    for requested in (False, True):
        shutdown = shutdown_of(3600, ended)
        shutdown.start()
        if requested:
            shutdown.request()
        shutdown.close()
    assert not ended.called.is_set()


def test_a_broken_device_waits_for_the_claims_under_way() -> None:
    ended = Exit()
    shutdown = shutdown_of(3600, ended)
    with shutdown.claiming():
        thread = threading.Thread(target=shutdown.end_for_broken_device, args=("the device is broken",))
        thread.start()
        assert not ended.called.wait(0.05)
    thread.join(60)
    assert ended.code == os.EX_SOFTWARE
