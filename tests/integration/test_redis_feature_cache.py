"""The feature cache in a real Redis: its limits of bytes and time, and a full Redis."""

from __future__ import annotations

import logging
import time
import uuid

import numpy as np
import pytest
import redis

from maskscore.devstack import LocalServices
from maskscore_worker.features.cache import FeatureCache
from maskscore_worker.features.redis_cache import RedisFeatureStore
from waiting import until


@pytest.fixture
def client(services: LocalServices) -> redis.Redis:
    return redis.Redis.from_url(services.redis.url)


@pytest.fixture
def namespace() -> str:
    return f"features-{uuid.uuid4().hex[:8]}"


def values(start: int, stop: int) -> dict[bytes, bytes]:
    return {n.to_bytes(32, "big"): n.to_bytes(4, "big") * 512 for n in range(start, stop)}


def test_what_is_put_is_there(client: redis.Redis, namespace: str) -> None:
    store = RedisFeatureStore(client, namespace=namespace, max_bytes=1 << 24, ttl_s=60)
    some = values(0, 600)
    store.put(some)
    store.put(some)
    assert store.get([*some, b"unknown"]) == some
    assert client.get(f"{namespace}:features:bytes") == b"%d" % (600 * (2048 + 300))


def test_the_least_recently_used_go_first(client: redis.Redis, namespace: str) -> None:
    store = RedisFeatureStore(client, namespace=namespace, max_bytes=100 * 2348, ttl_s=60)
    used = values(0, 10)
    for start in range(0, 1000, 10):
        store.put(values(start, start + 10))
        assert store.get(list(used)) == used
        time.sleep(0.002)  # Redis's clock is read in milliseconds
    assert client.zcard(f"{namespace}:features") == 100
    assert len(store.get(list(values(10, 1000)))) == 90
    assert len(store.get(list(values(920, 1000)))) == 80
    # The keys' own memory: the server's whole counts its other clients' buffers, too.
    keys = list(client.scan_iter(f"{namespace}:features*", count=1000))
    assert len(keys) == 102
    assert sum(client.memory_usage(key, samples=0) or 0 for key in keys) < 100 * 2348 * 1.5


def test_a_lowered_limit_is_reached_step_by_step(client: redis.Redis, namespace: str) -> None:
    RedisFeatureStore(client, namespace=namespace, max_bytes=1 << 24, ttl_s=60).put(values(0, 1000))
    small = RedisFeatureStore(client, namespace=namespace, max_bytes=50 * 2348, ttl_s=60)
    small.put(values(1000, 1001))
    assert 50 < int(client.zcard(f"{namespace}:features")) < 1000
    for _ in range(10):
        small.put(values(1000, 1001))
    assert client.zcard(f"{namespace}:features") == 50


def test_all_of_it_ends_with_its_time_to_live(client: redis.Redis, namespace: str) -> None:
    store = RedisFeatureStore(client, namespace=namespace, max_bytes=1 << 24, ttl_s=0.3)
    store.put(values(0, 100))
    first = next(iter(values(0, 1)))
    # Reading it would keep it.
    until(lambda: not client.exists(f"{namespace}:features:".encode() + first))

    def only_one_is_counted() -> bool:
        store.put(values(100, 101))
        total = client.get(f"{namespace}:features:bytes")
        return client.zcard(f"{namespace}:features") == 1 and total == b"2348"

    # The next one to come clears away what is left of those that went by themselves.
    until(only_one_is_counted)
    until(lambda: not list(client.scan_iter(f"{namespace}:features*", count=1000)))


def test_a_redis_whose_memory_is_needed_takes_nothing_more(client: redis.Redis, namespace: str) -> None:
    store = RedisFeatureStore(client, namespace=namespace, max_bytes=1 << 24, ttl_s=60)
    store.put(values(0, 1))
    used = client.info("memory")["used_memory"]
    try:
        client.config_set("maxmemory", int(used * 1.2))
        busy = RedisFeatureStore(client, namespace=namespace, max_bytes=1 << 24, ttl_s=60)
        busy.put(values(1, 2))
        assert busy.get(list(values(0, 2))) == values(0, 1)
        # Full, it still answers.
        client.config_set("maxmemory", int(used * 0.5))
        assert busy.get(list(values(0, 2))) == values(0, 1)
    finally:
        client.config_set("maxmemory", 0)


def test_a_redis_that_is_away_costs_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    nowhere = redis.Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=1)
    cache = FeatureCache(
        lambda: RedisFeatureStore(nowhere, namespace="x", max_bytes=1 << 20, ttl_s=60),
        place="Redis",
        dimensions=3,
        rest_s=3600,
    )
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert cache.get([b"a"]) == {}
            cache.put({b"a": np.ones(3, np.float32)})
    assert len(caplog.records) == 1
    assert "127.0.0.1:1" in caplog.text
    cache.close()
