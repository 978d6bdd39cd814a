"""A gateway in a process of its own, as it runs elsewhere, and what its streams of events say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from maskscore.devstack.ports import free_port
from scrape import get
from waiting import until

__all__ = ["TOKEN", "Event", "Gateway", "events", "running_gateway"]

TOKEN = "for-the-tests-and-nothing-else"


@dataclass
class Gateway:
    """The process; ``http`` sends the token with each request."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    http: httpx2.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def running_gateway(
    folder: Path, environment: Mapping[str, str], *arguments: str, before: Callable[[], None] | None = None
) -> Iterator[Gateway]:
    """Start one, wait until it listens, and end it; ``before`` runs in its process first."""
    port = free_port()
    folder.mkdir(exist_ok=True)
    log = folder / f"gateway-{port}.log"
    tokens = {"MASKSCORE_GATEWAY_TOKENS": f"tests={TOKEN}"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "maskscore", "gateway", "--port", str(port), *arguments],
            env={**os.environ, **tokens, **environment},
            stdout=output,
            stderr=output,
            preexec_fn=before,
        )
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        until(lambda: get(port, "/livez")[0] == 200 or process.poll() is not None, "the gateway answers")
        assert process.poll() is None, log.read_text()
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False) as http:
            yield Gateway(port, process, log, http)
    finally:
        process.kill()
        process.wait()


@dataclass
class Event:
    """One server-sent event."""

    event: str
    id: str
    data: Any


def events(response: httpx2.Response) -> Iterator[Event]:
    """Yield the events of a stream as they come."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield Event(fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"]))
            fields = {}
