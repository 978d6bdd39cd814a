"""A Redis in cluster mode is refused at the start by each part that connects to it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from maskscore import AsyncClient, Client, Job
from maskscore.broker.redis_connection import connect
from maskscore.devstack.ports import free_port_pairs
from maskscore.devstack.redis_server import RedisServer
from maskscore.errors import SettingsError
from maskscore.exporter.ledger_exporter import run_exporter
from maskscore.gateway.server import run_gateway
from maskscore.settings import ClientSettings, GatewaySettings, WorkerSettings
from maskscore_worker.demo.run import DEMO_WEIGHTS

JOB = Job(image="s3://photos/a.jpg", masks="s3://masks/a.json")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # The nodes of a cluster talk on the port 10,000 above.
    port = free_port_pairs(1)[0][0]
    with RedisServer(tmp_path_factory.mktemp("cluster"), port=port, config={"cluster-enabled": "yes"}) as server:
        yield server.url


def submit(url: str) -> None:
    with Client(redis_url=url) as client:
        client.submit(JOB)


def wait(url: str) -> None:
    with Client(redis_url=url) as client:
        client.wait("a", timeout=1)


def submit_without_a_thread(url: str) -> None:
    async def run() -> None:
        async with AsyncClient(redis_url=url) as client:
            await client.submit(JOB)

    asyncio.run(run())


def serve(url: str) -> None:
    run_gateway(GatewaySettings(redis_url=url, gateway_port=0), lambda _: None)


def export_metrics(url: str) -> None:
    run_exporter(WorkerSettings(redis_url=url, http_port=1), threading.Event(), lambda _: None)


def speak_resp_2(url: str) -> None:
    submit(f"{url}?protocol=2")


@pytest.mark.parametrize("use", [submit, wait, submit_without_a_thread, serve, export_metrics, speak_resp_2])
def test_it_is_refused_in_one_sentence(url: str, use: Callable[[str], None]) -> None:
    with pytest.raises(SettingsError, match="runs in cluster mode") as caught:
        use(url)
    assert "\n" not in str(caught.value)
    assert "script" not in str(caught.value).replace("the ledger's scripts", "")


@pytest.mark.parametrize("command", [["worker"], ["pool", "--workers", "1"]], ids=["worker", "pool"])
def test_a_worker_and_a_pool_end_at_once(url: str, command: list[str]) -> None:
    environment = {
        **os.environ,
        "MASKSCORE_REDIS_URL": url,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "maskscore", *command], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("cluster mode") == 1
    assert "Traceback" not in ended.stderr


def test_a_redis_without_cluster_mode_is_taken_with_both_protocols(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        for protocol in (2, 3):
            client: redis.Redis = connect(ClientSettings(redis_url=f"{server.url}?protocol={protocol}"))
            with client:
                assert client.ping()
