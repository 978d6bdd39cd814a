"""The Celery application of the workers: what their queue is called, and how they take tickets from it."""

from __future__ import annotations

from typing import Final

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from maskscore.broker.redis_connection import KEEPALIVE
from maskscore.broker.sentinel import parse_sentinel_url
from maskscore.broker.tickets import DEFAULT_MODEL, PRIORITY_STEPS, TASK_NAME, queue_name
from maskscore.settings import ClientSettings

__all__ = ["UNREACHABLE_ERRORS", "make_app"]

UNREACHABLE_ERRORS: Final = (redis.ConnectionError, redis.TimeoutError, OperationalError)
"""What redis-py and Celery raise where Redis does not answer."""


def make_app(settings: ClientSettings, model: str = DEFAULT_MODEL) -> Celery:
    """Return the Celery application: JSON only, no result backend, early acknowledgement, one message ahead.

    Its queue, and the route of its task, is that of the model's tickets.
    """
    queue = queue_name(settings.namespace, model)
    sentinel = parse_sentinel_url(settings.redis_url)
    app = Celery("maskscore", broker=sentinel.kombu_url if sentinel else settings.redis_url, set_as_current=False)
    app.conf.update(
        task_default_queue=queue,
        task_routes={TASK_NAME: {"queue": queue}},
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Such as a Redis that is full, or a replica that was promoted: wait, do not end the process.
        broker_channel_error_retry=True,
        worker_enable_prefetch_count_reduction=False,
        broker_transport_options={
            # The ledger knows what was taken by whom. Kombu's own notes in Redis would cost two round trips per job,
            # and one that could not be removed would take up a place for ever.
            "ack_emulation": False,
            "global_keyprefix": f"{settings.namespace}:celery:",
            "priority_steps": list(PRIORITY_STEPS),
            "queue_order_strategy": "priority",
            "socket_timeout": settings.redis_timeout_s,
            "socket_connect_timeout": settings.redis_timeout_s,
            **KEEPALIVE,
            "health_check_interval": 25,
            **(sentinel.kombu_options(settings.redis_timeout_s) if sentinel else {}),
        },
    )
    return app
