"""Shards while Redis or S3 is away or fails: they go on by themselves, and no row is lost, doubled or wrong."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from chaos.chaos_profile import PROFILE
from chaos.deployment import Deployment
from chaos.fleet import Worker
from chaos.scenario import Record, Row
from chaos.shard_corpus import ShardCorpus
from chaos.shard_faults import ShardRun
from waiting import until

pytestmark = pytest.mark.timeout(900)

_SHARDS = 6 if PROFILE.name == "short" else 40


def break_in_shards(
    deployment: Deployment,
    corpus: ShardCorpus,
    record: Record,
    fault: str,
    name: str,
    disturb: Callable[[ShardRun], object],
) -> None:
    """Break something while some parts are stored and others are not."""
    lock, stored, begun = threading.Lock(), set[str](), threading.Event()

    def at(request: str, _: Worker) -> bool:
        with lock:
            if request.startswith("PUT"):
                stored.add(request)
            if len(stored) < _SHARDS:
                return True
        begun.set()
        return True

    workers = list(deployment.fleet.workers)
    with ShardRun(deployment, corpus, name, _SHARDS) as run:
        run.at = at
        run.submit()
        until(begun.is_set, "parts are stored")
        disturb(run)
        ended = run.wait()
        outcome = run.outcome()
    record(Row(fault, outcome))
    assert ended
    run.check(outcome)
    assert [worker.pid for worker in workers if not worker.alive()] == []


def test_redis_restarted_in_shards(deployment: Deployment, shard_corpus: ShardCorpus, record: Record) -> None:
    def restart(_: ShardRun) -> None:
        os.kill(deployment.redis_pid, signal.SIGTERM)
        deployment.wait_redis_gone()
        time.sleep(1)
        deployment.start_redis_again()

    break_in_shards(deployment, shard_corpus, record, "Redis restarted in shards", "shard-restart", restart)


def test_redis_cut_off_in_shards(deployment: Deployment, shard_corpus: ShardCorpus, record: Record) -> None:
    def cut(_: ShardRun) -> None:
        deployment.redis_proxy.cut()
        time.sleep(PROFILE.cut_s)
        deployment.redis_proxy.pass_on()

    break_in_shards(deployment, shard_corpus, record, "Redis cut off in shards", "shard-cut", cut)


def test_redis_lost_all_of_its_shards(deployment: Deployment, shard_corpus: ShardCorpus, record: Record) -> None:
    def lose(run: ShardRun) -> None:
        os.kill(deployment.redis_pid, signal.SIGKILL)
        deployment.wait_redis_gone()
        deployment.start_redis_again(empty=True)
        run.submit()

    break_in_shards(deployment, shard_corpus, record, "Redis comes back empty, run again", "shard-empty", lose)


def test_s3_fails_half_of_the_requests_of_shards(
    deployment: Deployment, shard_corpus: ShardCorpus, record: Record
) -> None:
    def fail(_: ShardRun) -> None:
        until(lambda: deployment.s3_proxy.refused > refused + 2 * _SHARDS, "requests are refused")
        deployment.s3_proxy.pass_on()

    refused = deployment.s3_proxy.refused
    deployment.s3_proxy.fail(1 / 2)
    break_in_shards(deployment, shard_corpus, record, "S3 fails 1/2 of shards' requests", "shard-s3", fail)


def test_s3_has_no_room_for_parts(deployment: Deployment, shard_corpus: ShardCorpus, record: Record) -> None:
    def fill(_: ShardRun) -> None:
        deployment.s3_proxy.fill()
        deployment.say("S3 refuses what would store something: its quota is used up")
        until(lambda: deployment.s3_proxy.refused > refused + _SHARDS, "parts are refused")
        deployment.s3_proxy.pass_on()

    refused = deployment.s3_proxy.refused
    break_in_shards(deployment, shard_corpus, record, "S3 has no room for parts", "shard-quota", fill)
