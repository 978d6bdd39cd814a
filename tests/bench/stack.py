"""A real Redis, a real S3 server and real workers for the benchmarks, and what the system says of a process."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

from maskscore import Client, ClientSettings
from maskscore.devstack import LocalServices
from maskscore.devstack.local_worker import start_worker
from maskscore.devstack.server_process import ServerProcess

__all__ = [
    "BUCKET",
    "cpu_seconds",
    "cpu_seconds_of_session",
    "resident_mb",
    "running_services",
    "running_worker",
    "upload",
]

BUCKET = "bench"


@contextmanager
def running_services() -> Iterator[LocalServices]:
    """Yield a private Redis and S3; the environment of this process points to them meanwhile."""
    before = dict(os.environ)
    with LocalServices() as services:
        os.environ.update(services.environment())
        services.create_bucket(BUCKET)
        try:
            yield services
        finally:
            os.environ.clear()
            os.environ.update(before)


@contextmanager
def running_worker(
    services: LocalServices, weights: Path, *, prompts: str, endpoint_url: str | None = None, **settings: object
) -> Iterator[tuple[Client, ServerProcess]]:
    """Yield a client and the worker that serves its namespace, a new one, and asks S3 at ``endpoint_url``."""
    namespace = f"bench-{uuid.uuid4().hex[:8]}"
    environment = {
        **services.environment(),
        **({"AWS_ENDPOINT_URL": endpoint_url, "AWS_ENDPOINT_URL_S3": endpoint_url} if endpoint_url else {}),
        "MASKSCORE_NAMESPACE": namespace,
        "MASKSCORE_WEIGHTS": str(weights),
        "MASKSCORE_PROMPTS": prompts,
        "MASKSCORE_BUCKETS": BUCKET,
        "MASKSCORE_DEVICE": "cpu",
        "MASKSCORE_LOG_LEVEL": "WARNING",
        **{f"MASKSCORE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    client_settings = ClientSettings(redis_url=services.redis.url, namespace=namespace)
    with start_worker(environment) as worker, Client(client_settings) as client:
        yield client, worker


def upload(data: bytes, name: str) -> str:
    """Put an object into the bucket and return its URI."""
    # A new session: the default one keeps the credentials of services that have ended.
    boto3.session.Session().client("s3").put_object(Bucket=BUCKET, Key=name, Body=data)
    return f"s3://{BUCKET}/{name}"


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, all its threads together; 0 where there is no ``/proc``."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


def cpu_seconds_of_session(session: int) -> float:
    """Return the processor time of all processes of a session that still run."""
    total = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            own = int((process / "stat").read_text("utf-8").rsplit(")", 1)[1].split()[3])
        except (OSError, IndexError):  # ended meanwhile
            continue
        if own == session:
            total += cpu_seconds(int(process.name))
    return total


def resident_mb(pid: int) -> float:
    """Return a process's resident memory in MiB; 0 where there is no ``/proc``."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
