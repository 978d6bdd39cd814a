"""Another project's server, started on a free port for a benchmark and ended with all of its processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.material import BUILD
from bench.stack import cpu_seconds_of_session

__all__ = ["PeerServer", "running_peer"]

_START_S = 300


@dataclass(frozen=True, slots=True)
class PeerServer:
    """A server that answers; ``session`` is the session of all of its processes."""

    port: int
    session: int

    def post(self, path: str, body: object) -> Any:
        """Send JSON and return the answer's."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=900) as answer:
            return json.load(answer)

    def cpu_seconds(self) -> float:
        """Return the processor time of all of its processes."""
        return cpu_seconds_of_session(self.session)


@contextmanager
def running_peer(
    name: str, command: Callable[[int], list[str]], *, environment: Mapping[str, str] | None = None
) -> Iterator[PeerServer]:
    """Start ``command(port)`` and yield it when its ``/health`` answers. Raises RuntimeError where it does not."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    log = BUILD / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(port),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(environment or {})},
            start_new_session=True,
            stdout=output,
            stderr=output,
        )
    with process:
        try:
            deadline = time.monotonic() + _START_S
            while not _answers(port):
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended at once, with exit code {process.returncode}: see {log}")
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{name} did not answer within {_START_S} s: see {log}")
                time.sleep(0.5)
            yield PeerServer(port, process.pid)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
    except OSError:
        return False
    return True
