"""Redis restarted, cut off, silent, full: workers go on by themselves, nothing accepted is lost."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable

import pytest

from chaos.chaos_profile import PROFILE
from chaos.deployment import CONCURRENCY, WORKERS, Deployment
from chaos.scenario import Load, Record, Row
from maskscore import ServiceUnavailable

pytestmark = pytest.mark.timeout(900)

_DOWN_S = 2.0


def break_under_load(deployment: Deployment, record: Record, fault: str, disturb: Callable[[Load], None]) -> None:
    """Break Redis under load, and wait until every worker has gone on by itself."""
    workers = list(deployment.fleet.workers)
    with deployment.load(re.sub(r"[^a-z]+", "-", fault.lower()).strip("-")) as load:
        load.start()
        load.wait_ended(30, PROFILE.patience_s)
        disturb(load)
        resumption = deployment.resumption(load)
        longest = resumption.wait(PROFILE.patience_s)
        deployment.say(f"every worker did jobs again after {longest:.1f} s; {len(load.refusals)} submits were refused")
        outcome = load.finish(PROFILE.patience_s)
    record(Row(fault, outcome, list(resumption.seconds.values())))
    outcome.check()
    assert [worker.pid for worker in workers if not worker.alive()] == []
    assert longest < PROFILE.patience_s, "a worker never took a job again"


def test_redis_restarted(deployment: Deployment, record: Record) -> None:
    def restart(load: Load) -> None:
        os.kill(deployment.redis_pid, signal.SIGTERM)
        deployment.say(f"SIGTERM to Redis; down for {_DOWN_S:g} s")
        time.sleep(_DOWN_S)
        deployment.start_redis_again()
        deployment.say("Redis is back, with its append-only file")

    break_under_load(deployment, record, "Redis restarted (AOF)", restart)


def test_redis_killed_and_submitted_again(deployment: Deployment, record: Record) -> None:
    # With `appendfsync everysec`, what Redis has confirmed is in the file a moment later; that moment may be lost.
    def kill(load: Load) -> None:
        os.kill(deployment.redis_pid, signal.SIGKILL)
        deployment.say(f"SIGKILL to Redis; down for {_DOWN_S:g} s")
        time.sleep(_DOWN_S)
        deployment.start_redis_again()
        load.submit_again()
        deployment.say(f"Redis is back; {load.accepted} jobs were submitted again")

    break_under_load(deployment, record, "Redis SIGKILLed (AOF), submit again", kill)


def test_redis_lost_everything_and_submitted_again(deployment: Deployment, record: Record) -> None:
    def lose(load: Load) -> None:
        os.kill(deployment.redis_pid, signal.SIGKILL)
        deployment.wait_redis_gone()
        deployment.start_redis_again(empty=True)
        load.submit_again()
        deployment.say(f"Redis is back, empty; {load.accepted} jobs were submitted again")

    break_under_load(deployment, record, "Redis comes back empty, submit again", lose)


@pytest.mark.skipif(PROFILE.name == "short", reason="waits for the watchdog: in the long profile")
def test_redis_connections_silent(deployment: Deployment, record: Record) -> None:
    """Celery waits for ever on a connection that carries nothing any more: the watchdog has to see it.

    The processes that it ends are started again, as a supervisor does.
    """
    ended: list[int] = []
    with deployment.load("silent") as load:
        load.start()
        load.wait_ended(30, PROFILE.patience_s)
        deployment.redis_proxy.silence()
        deployment.say("every connection to Redis stays open and carries nothing any more; new ones do")
        resumption = deployment.resumption(load)
        deadline = time.monotonic() + 3 * PROFILE.watchdog_s
        while not resumption.poll() and time.monotonic() < deadline:
            for worker in list(deployment.fleet.workers):
                if not worker.alive():
                    ended.append(worker.pid)
                    deployment.fleet.replace(worker)
                    resumption.instead(worker.name, deployment.fleet.workers[-1].name)
            time.sleep(0.1)
        longest = resumption.wait(PROFILE.patience_s)
        deployment.say(
            f"every worker did jobs again after {longest:.1f} s; the watchdog ended {len(ended)} of them before"
        )
        outcome = load.finish(PROFILE.patience_s)
    # A worker first works off the messages that it had before; how long the others lay shows when it is back.
    record(Row("Redis connections go silent", outcome, [max(longest, outcome.longest_wait_s)]))
    outcome.check()
    assert longest < 3 * PROFILE.watchdog_s


def test_redis_connection_cut(deployment: Deployment, record: Record) -> None:
    def cut(load: Load) -> None:
        deployment.redis_proxy.cut()
        deployment.say(f"every connection to Redis dropped and refused for {PROFILE.cut_s:g} s")
        time.sleep(PROFILE.cut_s)
        deployment.redis_proxy.pass_on()

    break_under_load(deployment, record, f"Redis cut off for {PROFILE.cut_s:g} s", cut)


def test_redis_connections_reset(deployment: Deployment, record: Record) -> None:
    def reset(load: Load) -> None:
        deployment.redis_proxy.delay(0.02)
        for _ in range(5):
            deployment.redis_proxy.reset()
            time.sleep(0.3)
        deployment.redis_proxy.pass_on()
        deployment.say("every connection to Redis reset, five times, on a line 20 ms slower than usual")

    break_under_load(deployment, record, "Redis connections reset, 5 times", reset)


def test_redis_paused_while_all_slots_are_busy(deployment: Deployment, record: Record) -> None:
    pause_s = 1.5 * PROFILE.redis_timeout_s + 1

    def pause(load: Load) -> None:
        namespace = deployment.environment["MASKSCORE_NAMESPACE"]
        while deployment.server.zcard(f"{namespace}:running") < WORKERS * CONCURRENCY:
            time.sleep(0.001)
        deployment.server.execute_command("CLIENT", "PAUSE", int(pause_s * 1000), "ALL")
        deployment.say(f"CLIENT PAUSE for {pause_s:g} s, with all {WORKERS * CONCURRENCY} slots busy")
        time.sleep(pause_s)

    break_under_load(deployment, record, f"Redis silent {pause_s:g} s, all slots busy", pause)


def test_redis_full(deployment: Deployment, record: Record) -> None:
    full_s = 5.0 if PROFILE.name == "short" else 20.0
    refused: list[str] = []

    def fill(load: Load) -> None:
        # Half of what is used, so that it stays full whatever is freed: what would take memory is refused, as
        # `noeviction` says.
        used = deployment.server.info("memory")["used_memory"]
        deployment.server.config_set("maxmemory", used // 2)
        deployment.say(f"maxmemory reached for {full_s:g} s")
        try:
            deadline = time.monotonic() + full_s
            with pytest.raises(ServiceUnavailable) as caught:
                deployment.client.submit(deployment.corpus.job(0, f"{load.batch_id}-refused"))
            refused.append(str(caught.value))
            deployment.say(f"a submit was refused: {refused[0]}")
            time.sleep(max(0.0, deadline - time.monotonic()))
        finally:
            deployment.server.config_set("maxmemory", 0)

    break_under_load(deployment, record, f"Redis full (maxmemory) for {full_s:g} s", fill)
    assert "memory" in refused[0]
