"""A worker process: pin the device, load, warm up, consume, drain."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import redis
from celery import Celery, signals
from celery.worker import state as celery_state

from maskscore.broker import (
    Sender,
    connect,
    make_app,
    missing_right,
    public_url,
    queue_keys,
    queued_messages,
    redis_errors,
    refuse_missing_rights,
)
from maskscore.exporter import Endpoint
from maskscore.ledger import Ledger, Sweeper, WorkerHeartbeat, WorkerRegistry
from maskscore.observability import log_to_stderr, open_tracing
from maskscore.settings import WorkerSettings
from maskscore_worker.jobs import (
    Attempts,
    Company,
    Drain,
    Leases,
    QueueConsumer,
    WorkerFaults,
    guard_queue,
    register,
    register_commands,
)
from maskscore_worker.loading import load_pipeline
from maskscore_worker.model import keep_freed_memory
from maskscore_worker.monitoring import Health, Observation, Presence, Stillness, Watchdog
from maskscore_worker.pipeline import Pipeline
from maskscore_worker.telemetry import Meter

__all__ = ["run"]

log = logging.getLogger("maskscore_worker")


def run(settings: WorkerSettings) -> int:
    """Run a worker until SIGTERM or Ctrl-C and return its exit code.

    Nothing new is begun then, and jobs in flight have ``settings.grace_s`` seconds to finish; a second signal, or the
    end of the grace period, gives them back and ends the process. Raises :class:`~maskscore.errors.SettingsError`,
    :class:`~maskscore.errors.WeightsError` or :class:`~maskscore.errors.ServiceUnavailable` when it cannot start.
    """
    keep_freed_memory()
    log_to_stderr(settings.log_level, settings.log_format)
    client = connect(settings)
    with redis_errors(settings):
        client.ping()
        refuse_missing_rights(client, settings.namespace)
    name = f"{socket.gethostname()}-{os.getpid()}"
    meter, health = Meter(), Health(settings)
    with ExitStack() as stack:
        stack.callback(_forget_ready, settings)
        if settings.http_port:
            probes = {"/livez": health.live, "/readyz": health.ready}
            endpoint = Endpoint(settings.http_host, settings.http_port, meter.registry, probes)
            endpoint.start()
            stack.callback(endpoint.close)
        tracing = open_tracing("maskscore-worker")
        if tracing:
            stack.callback(tracing.close)
        pipeline = stack.enter_context(load_pipeline(settings, worker=name, encoded=meter.encoded))
        ledger = Ledger(client, namespace=settings.namespace, ttl_s=settings.result_ttl_s)
        guard_queue(meter.rejected)
        register_commands(ledger)
        app = make_app(settings)
        company = Company()
        leases = Leases(ledger, lease_s=settings.lease_s, timeout_s=settings.job_timeout_s, answered=meter.renewed)
        drain = Drain(settings.grace_s, hurry=lambda: _hurry(attempts, settings))
        faults = WorkerFaults(drain, most_s=min(30.0, settings.watchdog_s / 4))
        sender = Sender(app)
        stack.callback(sender.close)
        attempts = Attempts(
            settings,
            ledger,
            leases,
            company,
            drain,
            faults,
            pipeline,
            meter,
            tracing,
            send=lambda *message: sender.send([message]),
        )
        keys = queue_keys(app, settings.namespace)
        messages = partial(queued_messages, client, keys)
        watchdog = _watchdog(settings, pipeline, ledger, messages, leases, company, attempts, health)
        presence = Presence(settings, pipeline, leases, drain, meter)
        heartbeat = WorkerHeartbeat(
            WorkerRegistry(client, namespace=settings.namespace),
            presence.describe,
            partial(missing_right, client, settings.namespace),
        )
        health.observe(watchdog, drain, heartbeat, faults, pipeline.device_check)
        pipeline.device_check.on_broken = lambda reason: _give_up(reason, attempts, settings)
        for thread in (
            leases,
            drain,
            watchdog,
            heartbeat,
            Sweeper(ledger, Sender(app), settings, name=name, queue_keys=keys, swept=meter.swept),
        ):
            thread.start()
            stack.callback(thread.close)
        register(app, attempts.run)
        exit_code = _consume(app, settings, drain, health, name)
        log.info("stopped; everything in flight was finished")
        return exit_code


def _consume(app: Celery, settings: WorkerSettings, drain: Drain, health: Health, name: str) -> int:
    """Take messages until the drain is asked for, and return when the jobs in flight have ended."""

    class Consumer(app.Worker):  # type: ignore[misc]
        """Celery's worker, but for the signals: its own second SIGTERM or Ctrl-C would lose what runs."""

        def install_platform_tweaks(self, worker: object) -> None:
            def stop(*_: object) -> None:
                drain.request()
                celery_state.should_stop = 0

            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
                # `nohup` is to keep it running when the terminal is closed.
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, stop)

    ready = _on_ready(settings, health)
    signals.worker_ready.connect(ready)
    worker = Consumer(
        hostname=f"maskscore@{name}",
        pool_cls="threads",
        concurrency=settings.concurrency,
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    health.queue_consumer = QueueConsumer(lambda: getattr(worker, "consumer", None), settings.namespace)
    worker.start()
    return int(worker.exitcode or 0)


def _hurry(attempts: Attempts, settings: WorkerSettings) -> None:
    """Give back what runs, and end: threads cannot be stopped, but their outcomes do not count any more."""
    try:
        released = attempts.release_all()
        log.warning("the time to finish is over; %d jobs were given back to the queue", released)
    finally:
        _end(settings, 0)


def _give_up(reason: str, attempts: Attempts, settings: WorkerSettings) -> None:
    """Give back what runs, and end: the device is broken for this process, and may be well for the next one."""
    log.critical("the worker ends itself: %s", reason)
    released = attempts.release_all()
    if attempts.begin_nothing_more(settings.redis_timeout_s):
        released += attempts.release_all()
    log.critical("%d jobs were given back to the queue, at no cost of an attempt", released)
    _end(settings, os.EX_SOFTWARE)


def _watchdog(
    settings: WorkerSettings,
    pipeline: Pipeline,
    ledger: Ledger,
    messages: Callable[[], int],
    leases: Leases,
    company: Company,
    attempts: Attempts,
    health: Health,
) -> Watchdog:
    def observe() -> Observation:
        held = leases.held()
        try:
            backlog, queued = ledger.backlog(), messages()
        except redis.RedisError:
            backlog, queued = None, 0
        idle = health.queue_consumer is not None and health.queue_consumer.cancelled
        return Observation(
            batcher=pipeline.batcher.stats(),
            taken=attempts.taken,
            room=company.room and len(held) < settings.concurrency and not idle,
            oldest_start=min((holder.started for holder in held if holder.computing), default=None),
            waiting=backlog.waiting if backlog else None,
            oldest_waiting_s=backlog.oldest_waiting_s if backlog else 0.0,
            messages=queued,
        )

    def bite(reason: str) -> None:
        threads = "".join(
            f"Thread {number}:\n{''.join(traceback.format_stack(frame))}"
            for number, frame in sys._current_frames().items()
        )
        message = "the worker ends itself: %s; where its threads are is below"
        log.handle(log.makeRecord(log.name, logging.CRITICAL, __file__, 0, message, (reason,), None, sinfo=threads))
        _end(settings, os.EX_SOFTWARE)

    stillness = Stillness(
        patience_s=settings.watchdog_s,
        job_timeout_s=settings.job_timeout_s,
        now=time.monotonic(),
    )
    return Watchdog(observe, stillness, bite, every_s=min(5.0, settings.watchdog_s / 5))


def _end(settings: WorkerSettings, exit_code: int) -> None:
    """End the process now, whatever its threads are doing."""
    _forget_ready(settings)
    logging.shutdown()
    os._exit(exit_code)


def _on_ready(settings: WorkerSettings, health: Health):  # type: ignore[no-untyped-def]
    def ready(**_: object) -> None:
        health.consuming = True
        log.info(
            "taking jobs from %s, namespace %r, %d at a time",
            public_url(settings.redis_url),
            settings.namespace,
            settings.concurrency,
        )
        if settings.ready_file:
            settings.ready_file.write_text(f"{os.getpid()}\n")

    return ready


def _forget_ready(settings: WorkerSettings) -> None:
    if settings.ready_file:
        settings.ready_file.unlink(missing_ok=True)
