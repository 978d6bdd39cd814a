"""Redis restarted, cut off, silent, full: workers go on by themselves, nothing accepted is lost."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable

import pytest

from chaos.form import FORM
from chaos.scenario import Load, Record, Row
from chaos.stage import WORKERS, Stage
from maskscore import ServiceUnavailable

pytestmark = pytest.mark.timeout(900)

_DOWN_S = 2.0
_CONCURRENCY = 4


def break_under_load(stage: Stage, record: Record, fault: str, disturb: Callable[[Load], None]) -> None:
    """Break Redis under load, and wait until every worker has gone on by itself."""
    workers = list(stage.fleet.workers)
    with stage.load(re.sub(r"[^a-z]+", "-", fault.lower()).strip("-")) as load:
        load.start()
        load.wait_ended(30, FORM.patience_s)
        disturb(load)
        resumption = stage.resumption(load)
        longest = resumption.wait(FORM.patience_s)
        stage.say(f"every worker did jobs again after {longest:.1f} s; {len(load.refusals)} submits were refused")
        outcome = load.finish(FORM.patience_s)
    record(Row(fault, outcome, list(resumption.seconds.values())))
    outcome.check()
    assert [worker.pid for worker in workers if not worker.alive()] == []
    assert longest < FORM.patience_s, "a worker never took a job again"


def test_redis_restarted(stage: Stage, record: Record) -> None:
    def restart(load: Load) -> None:
        os.kill(stage.redis_pid, signal.SIGTERM)
        stage.say(f"SIGTERM to Redis; down for {_DOWN_S:g} s")
        time.sleep(_DOWN_S)
        stage.start_redis_again()
        stage.say("Redis is back, with its append-only file")

    break_under_load(stage, record, "Redis restarted (AOF)", restart)


def test_redis_killed_and_submitted_again(stage: Stage, record: Record) -> None:
    # With `appendfsync everysec`, what Redis has confirmed is in the file a moment later; that moment may be lost.
    def kill(load: Load) -> None:
        os.kill(stage.redis_pid, signal.SIGKILL)
        stage.say(f"SIGKILL to Redis; down for {_DOWN_S:g} s")
        time.sleep(_DOWN_S)
        stage.start_redis_again()
        load.submit_again()
        stage.say(f"Redis is back; {load.accepted} jobs were submitted again")

    break_under_load(stage, record, "Redis SIGKILLed (AOF), submit again", kill)


def test_redis_lost_everything_and_submitted_again(stage: Stage, record: Record) -> None:
    def lose(load: Load) -> None:
        os.kill(stage.redis_pid, signal.SIGKILL)
        stage.wait_redis_gone()
        stage.start_redis_again(empty=True)
        load.submit_again()
        stage.say(f"Redis is back, empty; {load.accepted} jobs were submitted again")

    break_under_load(stage, record, "Redis comes back empty, submit again", lose)


@pytest.mark.skipif(FORM.name == "short", reason="waits for the watchdog: in the long form")
def test_redis_connections_silent(stage: Stage, record: Record) -> None:
    """Celery waits for ever on a connection that carries nothing any more: the watchdog has to see it.

    The processes that it ends are started again, as a supervisor does.
    """
    ended: list[int] = []
    with stage.load("silent") as load:
        load.start()
        load.wait_ended(30, FORM.patience_s)
        stage.redis_proxy.silence()
        stage.say("every connection to Redis stays open and carries nothing any more; new ones do")
        resumption = stage.resumption(load)
        deadline = time.monotonic() + 3 * FORM.watchdog_s
        while not resumption.poll() and time.monotonic() < deadline:
            for worker in list(stage.fleet.workers):
                if not worker.alive():
                    ended.append(worker.pid)
                    stage.fleet.replace(worker)
                    resumption.instead(worker.name, stage.fleet.workers[-1].name)
            time.sleep(0.1)
        longest = resumption.wait(FORM.patience_s)
        stage.say(f"every worker did jobs again after {longest:.1f} s; the watchdog ended {len(ended)} of them before")
        outcome = load.finish(FORM.patience_s)
    # A worker first works off the messages that it had before; how long the others lay shows when it is back.
    record(Row("Redis connections go silent", outcome, [max(longest, outcome.longest_wait_s)]))
    outcome.check()
    assert longest < 3 * FORM.watchdog_s


def test_redis_connection_cut(stage: Stage, record: Record) -> None:
    def cut(load: Load) -> None:
        stage.redis_proxy.cut()
        stage.say(f"every connection to Redis dropped and refused for {FORM.cut_s:g} s")
        time.sleep(FORM.cut_s)
        stage.redis_proxy.pass_on()

    break_under_load(stage, record, f"Redis cut off for {FORM.cut_s:g} s", cut)


def test_redis_connections_reset(stage: Stage, record: Record) -> None:
    def reset(load: Load) -> None:
        stage.redis_proxy.delay(0.02)
        for _ in range(5):
            stage.redis_proxy.reset()
            time.sleep(0.3)
        stage.redis_proxy.pass_on()
        stage.say("every connection to Redis reset, five times, on a line 20 ms slower than usual")

    break_under_load(stage, record, "Redis connections reset, 5 times", reset)


def test_redis_paused_while_all_slots_are_busy(stage: Stage, record: Record) -> None:
    pause_s = 1.5 * FORM.redis_timeout_s + 1

    def pause(load: Load) -> None:
        namespace = stage.environment["MASKSCORE_NAMESPACE"]
        while stage.server.zcard(f"{namespace}:running") < WORKERS * _CONCURRENCY:
            time.sleep(0.001)
        stage.server.execute_command("CLIENT", "PAUSE", int(pause_s * 1000), "ALL")
        stage.say(f"CLIENT PAUSE for {pause_s:g} s, with all {WORKERS * _CONCURRENCY} slots busy")
        time.sleep(pause_s)

    break_under_load(stage, record, f"Redis silent {pause_s:g} s, all slots busy", pause)


def test_redis_full(stage: Stage, record: Record) -> None:
    full_s = 5.0 if FORM.name == "short" else 20.0
    refused: list[str] = []

    def fill(load: Load) -> None:
        # Half of what is used, so that it stays full whatever is freed: what would take memory is refused, as
        # `noeviction` says.
        used = stage.server.info("memory")["used_memory"]
        stage.server.config_set("maxmemory", used // 2)
        stage.say(f"maxmemory reached for {full_s:g} s")
        try:
            deadline = time.monotonic() + full_s
            with pytest.raises(ServiceUnavailable) as caught:
                stage.client.submit(stage.corpus.job(0, f"{load.batch_id}-refused"))
            refused.append(str(caught.value))
            stage.say(f"a submit was refused: {refused[0]}")
            time.sleep(max(0.0, deadline - time.monotonic()))
        finally:
            stage.server.config_set("maxmemory", 0)

    break_under_load(stage, record, f"Redis full (maxmemory) for {full_s:g} s", fill)
    assert "memory" in refused[0]
