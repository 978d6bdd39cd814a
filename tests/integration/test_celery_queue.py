"""Messages are put into the queue, also over connections that break."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from maskscore import ClientSettings, ServiceUnavailable
from maskscore.broker import LANES
from maskscore.broker.celery_queue import Sender, make_app, queue_keys
from maskscore.devstack import LocalServices
from maskscore.devstack.ports import free_port


@pytest.fixture
def settings(services: LocalServices) -> ClientSettings:
    return ClientSettings(redis_url=services.redis.url, namespace=f"queue-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def server(services: LocalServices) -> Any:
    return redis.Redis.from_url(services.redis.url)


@pytest.fixture
def sender(settings: ClientSettings) -> Iterator[Sender]:
    sender = Sender(make_app(settings))
    yield sender
    sender.close()


def lengths(settings: ClientSettings, server: Any) -> list[int]:
    return [server.llen(key) for key in queue_keys(make_app(settings), settings.namespace)]


def test_each_lane_has_the_list_that_the_keeper_looks_at(settings: ClientSettings, server: Any, sender: Sender) -> None:
    for count, lane in enumerate(LANES, start=1):
        sender.send([(f"{lane}-{n}", lane) for n in range(count)])
    assert lengths(settings, server) == [1, 2, 3, 4, 5, 6]


def test_connections_that_break_between_messages_are_made_anew(
    settings: ClientSettings, server: Any, sender: Sender
) -> None:
    for number in range(20):
        server.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        sender.send([(str(number), "normal")])
    assert lengths(settings, server)[LANES.index("normal")] == 20


def test_a_broker_that_is_away_is_said_to_be_and_does_not_spoil_what_comes_later(
    settings: ClientSettings, server: Any, sender: Sender
) -> None:
    port = free_port()
    nowhere = Sender(make_app(ClientSettings(redis_url=f"redis://127.0.0.1:{port}/0", redis_timeout_s=1)))
    for _ in range(3):
        with pytest.raises(ServiceUnavailable, match="broker does not answer"):
            nowhere.send([("a", "normal")])
