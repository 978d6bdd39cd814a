"""Submits per second through the gateway, from many connections, and how long each takes; beside the Python client."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.stack import cpu_seconds, running_services
from maskscore import Client, ClientSettings, Job, Mask
from maskscore.devstack.ports import free_port
from scrape import get
from waiting import until

__all__ = ["run"]

CONNECTIONS = (1, 16, 64)
TOKEN = "for-the-benchmark-alone"
MASK = Mask(id="1", segmentation=[[100, 100, 300, 100, 300, 300, 100, 300]])


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure with a queue that nobody serves."""
    count = 6000 if full else 1500
    table = Table(title=f"{count} jobs of one mask")
    for name in ("submits", "per second", "median ms", "99 % ms", "processor ms"):
        table.add_column(name, justify="left" if name == "submits" else "right")
    with running_services() as services:
        settings = ClientSettings(redis_url=services.redis.url, namespace=f"gateway-{uuid.uuid4().hex[:8]}")
        with Client(settings) as client:
            client.submit(_job())
            single, listed = ([_job() for _ in range(count)] for _ in range(2))
            used = time.process_time()
            seconds = [_timed(client, job) for job in single]
            used = time.process_time() - used
            started = time.perf_counter()
            client.submit_many(listed)
            many = count / (time.perf_counter() - started)
        alone = count / sum(seconds)
        table.add_row(
            "Client.submit, one after the other", f"{alone:,.0f}", *_milliseconds(seconds), f"{used / count * 1000:.2f}"
        )
        with _running_gateway(settings) as (port, pid):
            for connections in CONNECTIONS:
                asyncio.run(_load(port, connections, _requests(connections * 5)))
                requests = _requests(count)
                started, used = time.perf_counter(), cpu_seconds(pid)
                seconds = asyncio.run(_load(port, connections, requests))
                rate = count / (time.perf_counter() - started)
                used = (cpu_seconds(pid) - used) / count * 1000
                name = f"POST /v1/jobs, {connections} connections"
                table.add_row(name, f"{rate:,.0f}", *_milliseconds(seconds), f"{used:.2f}")
                if connections == CONNECTIONS[1]:
                    figures["gateway.submit_per_s"] = rate
                    figures["gateway.cpu_ms_per_submit"] = used
                    figures["gateway.p50_ms"] = statistics.median(seconds) * 1000
                    figures["gateway.p99_ms"] = _percentile(seconds, 99) * 1000
                else:
                    figures[f"gateway.submit_per_s_{connections}"] = rate
                    figures[f"gateway.p99_ms_{connections}"] = _percentile(seconds, 99) * 1000
            lines = "\n".join(_job().model_dump_json() for _ in range(count)).encode()
            request = _request("/v1/batches", "application/x-ndjson", lines)
            started = time.perf_counter()
            asyncio.run(_send(port, [request], []))
            lined = count / (time.perf_counter() - started)
        table.add_row("Client.submit_many", f"{many:,.0f}", "", "", "")
        table.add_row("POST /v1/batches, JSON Lines", f"{lined:,.0f}", "", "", "")
    console.print(table)
    figures["gateway.client_submit_per_s"] = alone
    figures["gateway.client_submit_many_per_s"] = many
    figures["gateway.lines_per_s"] = lined


def _job() -> Job:
    return Job(image="s3://bench/a.jpg", masks=[MASK])


def _timed(client: Client, job: Job) -> float:
    started = time.perf_counter()
    client.submit(job)
    return time.perf_counter() - started


@contextmanager
def _running_gateway(settings: ClientSettings) -> Iterator[tuple[int, int]]:
    port = free_port()
    environment = {
        **os.environ,
        "MASKSCORE_NAMESPACE": settings.namespace,
        "MASKSCORE_GATEWAY_TOKENS": f"bench={TOKEN}",
        "MASKSCORE_LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "maskscore", "gateway", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        until(lambda: get(port, "/readyz")[0] == 200, "the gateway is ready")
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def _requests(count: int) -> list[bytes]:
    return [_request("/v1/jobs", "application/json", _job().model_dump_json().encode()) for _ in range(count)]


async def _load(port: int, connections: int, requests: list[bytes]) -> list[float]:
    seconds: list[float] = []
    shares = [requests[number::connections] for number in range(connections)]
    await asyncio.gather(*(_send(port, share, seconds) for share in shares))
    return seconds


def _request(path: str, media_type: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: {media_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _send(port: int, requests: list[bytes], seconds: list[float]) -> None:
    """Send one after the other over one connection; a client library would take more time than what is measured."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in requests:
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 202 "), head
        (length,) = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        await reader.readexactly(int(length))
        seconds.append(time.perf_counter() - started)
    writer.close()
    await writer.wait_closed()


def _milliseconds(seconds: list[float]) -> tuple[str, str]:
    return f"{statistics.median(seconds) * 1000:.1f}", f"{_percentile(seconds, 99) * 1000:.1f}"


def _percentile(seconds: list[float], percent: int) -> float:
    return statistics.quantiles(seconds, n=100)[percent - 1]
