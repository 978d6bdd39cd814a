"""``maskscore run`` over many small jobs: its rate, and its memory, which must not grow with their number.

The consumer is a stub (:mod:`bench.run_consumer`): the forward is not the subject.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.run_consumer import MULTIPLIERS
from bench.stack import cpu_seconds, resident_mb, running_services
from maskscore import BatchNotFound, Client, ClientSettings

__all__ = ["run"]

_BATCH = "bench-run"
_LOOK_EVERY_S = 0.25


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Run the command in a process of its own over generated files, and look at that process while it works."""
    count = 100_000 if full else 5_000
    with running_services() as services, tempfile.TemporaryDirectory() as folder:
        _generate(Path(folder), count)
        settings = ClientSettings(redis_url=services.redis.url, namespace=f"run-{uuid.uuid4().hex[:8]}")
        environment = {
            **os.environ,
            "MASKSCORE_REDIS_URL": settings.redis_url,
            "MASKSCORE_NAMESPACE": settings.namespace,
        }
        consumer = [sys.executable, "-m", "bench.run_consumer", settings.redis_url, settings.namespace]
        command = [sys.executable, "-m", "maskscore", "run", folder, "--batch-id", _BATCH, "--json"]
        with (
            Client(settings) as client,
            subprocess.Popen(consumer, env=environment) as stub,
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process,
        ):
            try:
                looks, seconds = _watched(client, process)
                out, _ = process.communicate(timeout=60)
            finally:
                stub.kill()
                process.kill()
    if process.returncode:
        raise AssertionError(f"run ended with {process.returncode}")
    summary = json.loads(out)
    found = (summary["states"]["succeeded"], summary["masks"])
    if found != (count, count * len(MULTIPLIERS)):
        raise AssertionError(f"{count:,} jobs were to succeed, and were counted as {found}")
    _report(console, figures, count, summary["jobs_per_s"], looks, seconds)


def _generate(folder: Path, count: int) -> None:
    """Write the files of a dataset as SA-1B's are named; nobody reads them."""
    for n in range(count):
        shelf = folder / f"sa_{n // 1000:06}"
        if n % 1000 == 0:
            shelf.mkdir()
        for suffix in ("jpg", "json"):
            (shelf / f"sa_{n}.{suffix}").touch()


def _watched(client: Client, process: subprocess.Popen[str]) -> tuple[list[tuple[int, float]], float]:
    """Return how many jobs had ended at each look with the process's resident MiB then, and its processor time."""
    looks, seconds = [(0, 0.0)], 0.0
    while process.poll() is None:
        try:
            ended = client.batch(_BATCH).counts().ended
        except BatchNotFound:
            ended = 0
        if (resident := resident_mb(process.pid)) > 0:
            looks.append((ended, resident))
            seconds = cpu_seconds(process.pid)
        time.sleep(_LOOK_EVERY_S)
    return looks, seconds


def _report(
    console: Console, figures: Figures, count: int, per_s: float, looks: list[tuple[int, float]], seconds: float
) -> None:
    table = Table(title=f"maskscore run, {count:,} jobs of {len(MULTIPLIERS)} masks")
    table.add_column("jobs ended", justify="right")
    table.add_column("resident MiB, at most until then", justify="right")
    for tenth in range(1, 11):
        limit = count * tenth // 10
        table.add_row(f"{limit:,}", f"{_most(looks, limit):.0f}")
    console.print(table)
    # The first tenth fills what is filled once: modules, connections, pools.
    growth = _most(looks, count) - _most(looks, count // 10)
    console.print(f"{per_s:,.0f} jobs/s, from the listing to the last result; {count / seconds:,.0f} per core-second")
    console.print(f"growth after the first tenth: {growth:+.1f} MiB")
    figures["run.jobs"] = count
    figures["run.jobs_per_s"] = per_s
    figures["run.jobs_per_core_s"] = count / seconds
    figures["run.rss_mb"] = _most(looks, count)
    figures["run.rss_growth_mb"] = growth


def _most(looks: list[tuple[int, float]], ended: int) -> float:
    return max(resident for at, resident in looks if at <= ended)
