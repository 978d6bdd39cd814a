"""Redis and the queue in it: connections, Sentinel, the least rights, Celery's application, tickets."""

from __future__ import annotations

from maskscore.broker.celery_queue import UNREACHABLE_ERRORS, make_app
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
from maskscore.broker.tickets import DEFAULT_MODEL, TASK_NAME, TICKET, queue_keys, queue_name, queued_tickets

__all__ = [
    "DEFAULT_MODEL",
    "TASK_NAME",
    "TICKET",
    "UNREACHABLE_ERRORS",
    "ClusterModeError",
    "SentinelAddress",
    "connect",
    "is_transient",
    "make_app",
    "missing_right",
    "parse_sentinel_url",
    "public_url",
    "queue_keys",
    "queue_name",
    "queued_tickets",
    "redacted",
    "redis_errors",
    "redis_reason",
    "refuse_cluster",
    "refuse_missing_rights",
]
