"""Tickets are messages that Celery takes, in the lists that the worker and the ledger look at."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
import redis

from maskscore import ClientSettings
from maskscore.broker import TASK_NAME, TICKET, make_app, queue_keys, queue_name, queued_tickets
from maskscore.devstack import LocalServices
from maskscore.ledger import Ledger, Submission
from maskscore_worker.jobs.message_filter import rejection_reason


@pytest.fixture
def settings(services: LocalServices) -> ClientSettings:
    return ClientSettings(redis_url=services.redis.url, namespace=f"queue-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def server(services: LocalServices) -> Any:
    return redis.Redis.from_url(services.redis.url)


@pytest.mark.parametrize("model", ["", "ViT-L-14"])
def test_celery_looks_for_tickets_where_the_ledger_puts_them(settings: ClientSettings, server: Any, model: str) -> None:
    app = make_app(settings, model)
    ledger = Ledger(server, namespace=settings.namespace, ttl_s=60)
    priorities: list[Any] = ["high", "normal", "low"]
    ledger.submit([Submission(name, b"x", "d", None, name, None, model=model) for name in priorities])
    with app.connection_for_read() as connection:
        channel: Any = connection.default_channel
        queue = queue_name(settings.namespace, model)
        assert queue == app.conf.task_default_queue == app.amqp.router.route({}, TASK_NAME)["queue"].name
        assert channel._size(queue) == 3 == queued_tickets(server, queue_keys(settings.namespace, model))
        taken = [channel._get(queue) for _ in priorities]
    ids = [message["headers"]["id"] for message in taken]
    # In the order of their priorities, and each with an id of its own.
    assert ids == sorted(ids)
    assert len(set(ids)) == 3
    assert all(rejection_reason(message) is None for message in taken)
    app.close()


def test_a_ticket_has_what_celery_needs_of_its_own_message(settings: ClientSettings, server: Any) -> None:
    app = make_app(settings)
    app.send_task(TASK_NAME, args=["ticket"], task_id="1")
    written = json.loads(server.lpop(queue_keys(settings.namespace)[0]))
    ticket = json.loads(TICKET % ("1", "1"))
    assert ticket.keys() == written.keys()
    assert ticket["headers"].items() <= written["headers"].items()
    for name in ("content-type", "content-encoding"):
        assert ticket[name] == written[name]
    assert ticket["properties"].keys() <= written["properties"].keys()
    assert len(TICKET) < len(json.dumps(written)) / 3
    app.close()
