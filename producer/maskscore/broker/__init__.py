"""Redis and the queue in it: connections, Sentinel, the least rights, Celery's application, and sending messages."""

from __future__ import annotations

from maskscore.broker.celery_queue import (
    LANES,
    TASK_NAME,
    UNREACHABLE_ERRORS,
    Lane,
    Sender,
    make_app,
    queue_keys,
    queued_messages,
)
from maskscore.broker.redaction import public_url, redacted
from maskscore.broker.redis_connection import (
    ClusterModeError,
    connect,
    is_transient,
    redis_errors,
    redis_reason,
    refuse_cluster,
)
from maskscore.broker.redis_rights import missing_right, refuse_missing_rights
from maskscore.broker.sentinel import SentinelAddress, parse_sentinel_url

__all__ = [
    "LANES",
    "TASK_NAME",
    "UNREACHABLE_ERRORS",
    "ClusterModeError",
    "Lane",
    "Sender",
    "SentinelAddress",
    "connect",
    "is_transient",
    "make_app",
    "missing_right",
    "parse_sentinel_url",
    "public_url",
    "queue_keys",
    "queued_messages",
    "redacted",
    "redis_errors",
    "redis_reason",
    "refuse_cluster",
    "refuse_missing_rights",
]
