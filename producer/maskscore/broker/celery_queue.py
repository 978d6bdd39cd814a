"""The Celery application of both sides, and the one message there is: a job's id.

The ledger holds the job and its outcome, so that a lost message can be sent again and a doubled one ignored.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, Literal, get_args

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.transport.redis import Channel

from maskscore.broker.redaction import redacted
from maskscore.broker.redis_connection import KEEPALIVE
from maskscore.broker.sentinel import parse_sentinel_url
from maskscore.errors import ServiceUnavailable
from maskscore.settings import ClientSettings

__all__ = ["LANES", "TASK_NAME", "UNREACHABLE_ERRORS", "Lane", "Sender", "make_app", "queue_keys", "queued_messages"]

log = logging.getLogger(__name__)

_RETRY: Final = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.4}

TASK_NAME: Final = "maskscore.score"
Lane = Literal["high.again", "high", "normal.again", "normal", "low.again", "low"]
"""The list of messages in Redis that a job's message is in: its priority, and whether it was queued before."""
LANES: Final[tuple[Lane, ...]] = get_args(Lane)
"""All lanes, in the order in which they are served."""
UNREACHABLE_ERRORS: Final = (redis.ConnectionError, redis.TimeoutError, OperationalError)
"""What redis-py and Celery raise where Redis does not answer."""

# Redis's transport serves the smallest number first.
_PRIORITIES: Final[dict[Lane, int]] = {lane: number for number, lane in enumerate(LANES)}


def make_app(settings: ClientSettings) -> Celery:
    """Return the Celery application: JSON only, no result backend, early acknowledgement, one message ahead."""
    sentinel = parse_sentinel_url(settings.redis_url)
    app = Celery("maskscore", broker=sentinel.kombu_url if sentinel else settings.redis_url, set_as_current=False)
    app.conf.update(
        task_default_queue=settings.namespace,
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
            "priority_steps": sorted(_PRIORITIES.values()),
            "queue_order_strategy": "priority",
            "socket_timeout": settings.redis_timeout_s,
            "socket_connect_timeout": settings.redis_timeout_s,
            **KEEPALIVE,
            "health_check_interval": 25,
            **(sentinel.kombu_options(settings.redis_timeout_s) if sentinel else {}),
        },
    )
    return app


def queue_keys(app: Celery, namespace: str) -> list[str]:
    """Return the Redis lists that hold the queue's messages, one per lane, in the order of ``LANES``.

    They are kombu's: the transport's prefix, the queue's name, and for all priorities but 0 a separator and the
    priority (``kombu.transport.redis.Channel._q_for_pri``).
    """
    prefix = app.conf.broker_transport_options["global_keyprefix"]
    return [f"{prefix}{namespace}{f'{Channel.sep}{number}' if number else ''}" for number in _PRIORITIES.values()]


def queued_messages(client: redis.Redis, keys: Iterable[str]) -> int:
    """Count the messages in the lists of :func:`queue_keys`. Raises :class:`redis.RedisError`."""
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.llen(key)
        return sum(pipeline.execute())


class Sender:
    """Puts messages into the queue; safe to share between threads.

    Celery's own pools of producers keep a connection that broke, and block for ever when all of them have: so the idle
    connections are kept here, and one that failed is not used again.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        # Used from its end, by one thread at a time each; both ends of a deque are safe between threads.
        self._idle: deque[Any] = deque()

    def send(self, jobs: Iterable[tuple[str, Lane]]) -> None:
        """Put one message per job id into the queue.

        Raises :class:`~maskscore.errors.ServiceUnavailable` when the broker does not answer; what was submitted is in
        the ledger, and submitting again sends what is missing.
        """
        messages = list(jobs)
        if not messages:
            return
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            self._publish(connection, messages)
        except Exception as error:
            # One that was idle may have broken long ago. Some messages may go twice, which costs nothing.
            log.info("the broker's connection is made anew: %s: %s", type(error).__name__, redacted(str(error)))
            connection.collect()
            connection = self._connect()
            try:
                self._publish(connection, messages)
            # AttributeError: it broke between two of kombu's steps, whose channel has no connection any more then.
            except (
                OperationalError,
                AttributeError,
                *connection.connection_errors,
                *connection.channel_errors,
            ) as again:
                connection.collect()
                raise ServiceUnavailable(
                    f"The broker does not answer: {redacted(str(again))}. Submit again when it does; nothing is "
                    "doubled."
                ) from again
        self._idle.append(connection)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().release()

    def _connect(self) -> Any:
        return self._app.connection_for_write(transport_options=_RETRY)

    def _publish(self, connection: Any, messages: Iterable[tuple[str, Lane]]) -> None:
        producer = self._app.amqp.Producer(connection)
        for job_id, lane in messages:
            self._app.send_task(
                TASK_NAME,
                args=[job_id],
                task_id=job_id,
                priority=_PRIORITIES[lane],
                producer=producer,
                retry=True,
                retry_policy=_RETRY,
            )
