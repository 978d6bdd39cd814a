"""A worker process: start, consume, stop."""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from celery import Celery, signals
from celery.worker import state as celery_state

from maskscore.broker import (
    DEFAULT_MODEL,
    TASK_NAME,
    connect,
    make_app,
    missing_right,
    public_url,
    queue_keys,
    queued_tickets,
    redis_errors,
    refuse_missing_rights,
)
from maskscore.exporter import Endpoint
from maskscore.ledger import Sweeper, WorkerHeartbeat, WorkerRegistry, open_ledger
from maskscore.observability import log_to_stderr, open_tracing
from maskscore.schema import DEFAULT_MODEL_NAME
from maskscore.settings import WorkerSettings
from maskscore_worker.jobs import (
    ConsumerState,
    ExclusiveGate,
    JobRunner,
    Leases,
    Shutdown,
    WorkerFaults,
    filter_messages,
    register_commands,
)
from maskscore_worker.model import collect_rarely, keep_freed_memory
from maskscore_worker.monitoring import Health, StallDetector, Watchdog, WorkerObserver, WorkerStatus
from maskscore_worker.pipeline import load_pipeline
from maskscore_worker.telemetry import WorkerMetrics

__all__ = ["run"]

log = logging.getLogger("maskscore_worker")


def run(settings: WorkerSettings) -> int:
    """Run a worker until SIGTERM or Ctrl-C and return its exit code; :mod:`maskscore_worker.jobs.shutdown` says how.

    Raises :class:`~maskscore.errors.SettingsError`, :class:`~maskscore.errors.WeightsError` or
    :class:`~maskscore.errors.ServiceUnavailable` when it cannot start.
    """
    keep_freed_memory()
    log_to_stderr(settings.log_level, settings.log_format)
    client = connect(settings)
    with redis_errors(settings):
        client.ping()
        refuse_missing_rights(client, settings.namespace)
    name, model = f"{socket.gethostname()}-{os.getpid()}", settings.model_name or DEFAULT_MODEL
    metrics, health = WorkerMetrics(), Health(settings)
    with ExitStack() as stack:
        if settings.ready_file:
            stack.callback(settings.ready_file.unlink, missing_ok=True)
        if settings.http_port:
            probes = {"/livez": health.live, "/readyz": health.ready}
            endpoint = Endpoint(settings.http_host, settings.http_port, metrics.registry, probes)
            endpoint.start()
            stack.callback(endpoint.close)
        tracing = open_tracing("maskscore-worker")
        if tracing:
            stack.callback(tracing.close)
        pipeline = stack.enter_context(load_pipeline(settings, worker=name, encoded=metrics.encoded))
        ledger = open_ledger(client, settings)
        filter_messages(metrics.rejected)
        register_commands(ledger)
        app = make_app(settings, model)
        leases = Leases(ledger, lease_s=settings.lease_s, timeout_s=settings.job_timeout_s, answered=metrics.renewed)
        shutdown = Shutdown(
            ledger,
            leases,
            grace_s=settings.grace_s,
            claim_timeout_s=settings.redis_timeout_s,
            ready_file=settings.ready_file,
        )
        gate, faults = ExclusiveGate(), WorkerFaults(shutdown, most_s=min(30.0, settings.watchdog_s / 4))
        runner = JobRunner(settings, ledger, leases, gate, shutdown, faults, pipeline, metrics, tracing)
        observer = WorkerObserver(
            concurrency=settings.concurrency,
            batcher=pipeline.batcher,
            ledger=ledger,
            model=settings.model_name or DEFAULT_MODEL_NAME,
            queued_tickets=partial(queued_tickets, client, queue_keys(settings.namespace, model)),
            leases=leases,
            gate=gate,
            runner=runner,
            consumer=lambda: health.consumer_state,
        )
        stall_detector = StallDetector(
            patience_s=settings.watchdog_s, job_timeout_s=settings.job_timeout_s, now=time.monotonic()
        )
        watchdog = Watchdog(observer, stall_detector, shutdown.end_for_stall, every_s=min(5.0, settings.watchdog_s / 5))
        heartbeat = WorkerHeartbeat(
            WorkerRegistry(client, namespace=settings.namespace),
            WorkerStatus(settings, pipeline, leases, shutdown, metrics).describe,
            partial(missing_right, client, settings.namespace),
        )
        health.observe(watchdog, shutdown, heartbeat, faults, pipeline.device_check)
        pipeline.fast_path.on_spot_check = metrics.spot_checked
        pipeline.device_check.on_broken = shutdown.end_for_broken_device
        sweeper = Sweeper(ledger, settings, name=name, on_sweep=metrics.swept)
        for thread in (leases, shutdown, watchdog, heartbeat, sweeper):
            thread.start()
            stack.callback(thread.close)
        collect_rarely()
        exit_code = _consume(app, settings, runner, shutdown, health, name)
        log.info("stopped; everything in flight was finished")
        return exit_code


def _consume(
    app: Celery, settings: WorkerSettings, runner: JobRunner, shutdown: Shutdown, health: Health, name: str
) -> int:
    """Take tickets until the shutdown is requested, and return when the jobs in flight have ended."""

    @app.task(name=TASK_NAME, bind=True, ignore_result=True)  # type: ignore[untyped-decorator]
    def score(task: Any, *_: object) -> str:
        """Run the next job. What is returned is in Celery's log and events; messages of release 0 name a job."""

        def began(job_id: str) -> None:
            # What `inspect active` shows.
            request = celery_state.requests.get(task.request.id)
            if request is not None:
                request._args = [job_id]

        return runner.run(began)

    class Consumer(app.Worker):  # type: ignore[misc]
        """Celery's worker with the signal handlers of the shutdown."""

        def install_platform_tweaks(self, worker: object) -> None:
            shutdown.handle_signals()

    def ready(**_: object) -> None:
        health.consuming = True
        log.info(
            "taking jobs of the model %s from %s, namespace %r, %d at a time",
            settings.model_name or DEFAULT_MODEL_NAME,
            public_url(settings.redis_url),
            settings.namespace,
            settings.concurrency,
        )
        if settings.ready_file:
            settings.ready_file.write_text(f"{os.getpid()}\n")

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
    health.consumer_state = ConsumerState(lambda: getattr(worker, "consumer", None), app.conf.task_default_queue)
    worker.start()
    return int(worker.exitcode or 0)
