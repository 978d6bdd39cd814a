"""A worker process: pin the device, load, warm up, consume, drain."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import redis
import torch
from celery import Celery, signals
from celery.worker import state as celery_state

from maskscore.connection import connect, public_url, redis_errors
from maskscore.endpoint import Endpoint
from maskscore.errors import ServiceUnavailable, SettingsError
from maskscore.keeper import Keeper
from maskscore.ledger import Ledger
from maskscore.logs import log_to_stderr
from maskscore.objects import Objects
from maskscore.queue import Sender, make_app
from maskscore.registry import Beacon, Registry
from maskscore.settings import WorkerSettings
from maskscore.tracing import open_tracing
from maskscore_worker.attempt import Attempts
from maskscore_worker.batcher import Batcher
from maskscore_worker.company import Company
from maskscore_worker.cropper_choice import choose_cropper
from maskscore_worker.device import choose_device
from maskscore_worker.drain import Drain
from maskscore_worker.feature_cache import open_feature_cache
from maskscore_worker.features import PromptFeatureCache
from maskscore_worker.forward import Forward, fixed_sizes
from maskscore_worker.health import Health
from maskscore_worker.lanes import SLICE, Lanes
from maskscore_worker.leases import Leases
from maskscore_worker.metrics import Meter
from maskscore_worker.model import ClipModel, load_model
from maskscore_worker.pipeline import Pipeline
from maskscore_worker.precision import choose_precision
from maskscore_worker.presence import Presence
from maskscore_worker.prompt_sets import resolve_prompt_set
from maskscore_worker.tasks import register
from maskscore_worker.watchdog import Observation, Stillness, Watchdog

__all__ = ["load_pipeline", "run"]

log = logging.getLogger("maskscore_worker")


def run(settings: WorkerSettings) -> int:
    """Run a worker until SIGTERM or Ctrl-C and return its exit code.

    Nothing new is begun then, and jobs in flight have ``settings.grace_s`` seconds to finish; a second signal, or the
    end of the grace period, gives them back and ends the process. Raises :class:`~maskscore.errors.SettingsError`,
    :class:`~maskscore.errors.WeightsError` or :class:`~maskscore.errors.ServiceUnavailable` when it cannot start.
    """
    log_to_stderr(settings.log_level, settings.log_format)
    client = connect(settings)
    with redis_errors(settings):
        client.ping()
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
        app = make_app(settings)
        company = Company()
        leases = Leases(ledger, lease_s=settings.lease_s, timeout_s=settings.job_timeout_s, answered=meter.renewed)
        drain = Drain(settings.grace_s, hurry=lambda: _hurry(attempts, settings))
        sender = Sender(app)
        stack.callback(sender.close)
        attempts = Attempts(
            settings,
            ledger,
            leases,
            company,
            drain,
            pipeline,
            meter,
            tracing,
            send=lambda *message: sender.send([message]),
        )
        watchdog = _watchdog(settings, pipeline, ledger, leases, company, attempts)
        presence = Presence(settings, pipeline, leases, drain, meter)
        beacon = Beacon(Registry(client, namespace=settings.namespace), presence.describe)
        health.observe(watchdog, drain, beacon)
        for thread in (leases, drain, watchdog, beacon, Keeper(ledger, app, settings, name=name, swept=meter.swept)):
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
    worker.start()
    return int(worker.exitcode or 0)


def _hurry(attempts: Attempts, settings: WorkerSettings) -> None:
    """Give back what runs, and end: threads cannot be stopped, but their outcomes do not count any more."""
    try:
        released = attempts.release_all()
        log.warning("the time to finish is over; %d jobs were given back to the queue", released)
    except (redis.RedisError, ServiceUnavailable) as error:
        log.warning("what runs could not be given back (it comes back when its leases have lapsed): %s", error)
    _end(settings, 0)


def _watchdog(
    settings: WorkerSettings,
    pipeline: Pipeline,
    ledger: Ledger,
    leases: Leases,
    company: Company,
    attempts: Attempts,
) -> Watchdog:
    def observe() -> Observation:
        held = leases.held()
        try:
            backlog = ledger.backlog()
        except redis.RedisError:
            backlog = None
        return Observation(
            batcher=pipeline.batcher.stats(),
            taken=attempts.taken,
            room=company.room and len(held) < settings.concurrency,
            oldest_start=min((holder.started for holder in held if holder.computing), default=None),
            waiting=backlog.waiting if backlog else None,
            oldest_waiting_s=backlog.oldest_waiting_s if backlog else 0.0,
        )

    def bite(reason: str) -> None:
        log.critical("the worker ends itself: %s; where its threads are:", reason)
        faulthandler.dump_traceback(sys.stderr)
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


@contextmanager
def load_pipeline(
    settings: WorkerSettings, *, worker: str, encoded: Callable[[int], None] = lambda _: None
) -> Iterator[Pipeline]:
    """Load the model, encode the default prompts, run one warm-up batch, and yield what scores jobs.

    ``encoded`` is called with the number of crops of each batch that was encoded.

    Raises :class:`~maskscore.errors.SettingsError` or :class:`~maskscore.errors.WeightsError`.
    """
    if settings.weights is None:
        raise SettingsError(
            "No weights are set. Give the folder that holds open_clip_model.safetensors with --weights or "
            "MASKSCORE_WEIGHTS; `maskscore weights pull DIR` fetches one."
        )
    device = choose_device(settings.device)
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    started = time.perf_counter()
    precision = choose_precision(settings.precision, device)
    model = load_model(settings.weights, architecture=settings.model, device=device, precision=precision)
    features = PromptFeatureCache(model, settings.prompt_cache)
    prompt_set = resolve_prompt_set(settings.prompts, settings.prompts_dir)
    dimensions = features.get(prompt_set).shape[1]
    cache = open_feature_cache(settings, dimensions=dimensions)
    crop_mode = settings.crop_mode
    if crop_mode == "fast" and not model.standard_resize:
        log.info("%s has a transform of its own; its crops are made by it, in the mode `reference`", model.architecture)
        crop_mode = "reference"
    cropper = choose_cropper(settings.crop_device, model, crop_mode=crop_mode)
    batcher = _batcher(settings, model, encoded, reference=crop_mode == "reference")
    objects = Objects(
        buckets=settings.buckets,
        result_buckets=settings.result_buckets,
        file_roots=settings.file_roots,
        timeout_s=settings.s3_timeout_s,
        pool_size=settings.concurrency + 2,
    )
    batcher.start()
    try:
        batcher.encode(_blank(model, reference=crop_mode == "reference"))
        log.info(
            "%s on %s in %s, weights %s, prompts %r (%d), ready after %.1f s",
            model.architecture,
            device,
            model.precision,
            model.weights_digest[:19],
            prompt_set.name,
            len(prompt_set.texts),
            time.perf_counter() - started,
        )
        yield Pipeline(settings, crop_mode, model, cropper, batcher, features, objects, worker, cache)
    finally:
        # A device that hangs must not keep the process from ending.
        if not batcher.close(timeout_s=30):
            log.error("the device did not answer; its jobs are given up")
        objects.close()
        if cache is not None:
            cache.close()


def _batcher(settings: WorkerSettings, model: ClipModel, encoded: Callable[[int], None], *, reference: bool) -> Batcher:
    wait_s = settings.max_wait_ms / 1000
    tower, encode = (
        (model.tensor_tower, model.encode_tensors) if reference else (model.image_tower, model.encode_images)
    )
    if model.device.type != "cpu":
        blank = torch.from_numpy(_blank(model, reference=reference))
        sizes = fixed_sizes(settings.max_batch)
        forward = Forward(tower, shape=tuple(blank.shape[1:]), dtype=blank.dtype, device=model.device, sizes=sizes)
        # While one batch is on the device, the next is gathered and uploaded.
        encode_counted = _counted(forward.encode, encoded)
        return Batcher(encode_counted, max_batch=forward.sizes[-1], max_wait_s=wait_s, lanes=2)
    lanes = torch.get_num_threads()
    encode_counted = _counted(Lanes(encode, lanes).encode, encoded)
    return Batcher(encode_counted, max_batch=min(SLICE, settings.max_batch), max_wait_s=wait_s, lanes=lanes)


def _counted(encode: Callable[[Any], Any], encoded: Callable[[int], None]) -> Callable[[Any], Any]:
    def encode_counted(crops: Any) -> Any:
        features = encode(crops)
        encoded(len(crops))
        return features

    return encode_counted


def _blank(model: ClipModel, *, reference: bool) -> np.ndarray:
    side = model.image_size
    return np.zeros((1, 3, side, side), np.float32) if reference else np.zeros((1, side, side, 3), np.uint8)


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
