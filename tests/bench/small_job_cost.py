"""What a job of one mask costs: jobs per second and each process's processor time, in turn with release 0."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from bench.figures import Figures
from bench.material import BUILD
from bench.stack import cpu_seconds
from maskscore import Mask
from maskscore.devstack import LocalServices
from maskscore.devstack.local_worker import start_worker
from maskscore.settings import WorkerSettings
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.pipeline.loading import load_compared_model
from release_0 import NO_HISTORY, install_release_0

__all__ = ["compare_small_jobs"]


@dataclass
class _Release:
    """A worker of one release with the demo model, and a producer of the same one."""

    processes: dict[str, int]
    producer: subprocess.Popen[str]
    per_s: list[float] = field(default_factory=list)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)

    def score(self, count: int, *, kept: bool = True) -> None:
        """Let it score jobs; keep how many per second, and the milliseconds of each process's time per job."""
        assert self.producer.stdin is not None
        assert self.producer.stdout is not None
        before = {name: cpu_seconds(pid) for name, pid in self.processes.items()}
        self.producer.stdin.write(f"{count}\n")
        self.producer.stdin.flush()
        seconds = self.producer.stdout.readline()
        if not seconds:
            raise AssertionError("the producer of small jobs has ended; its error stands above")
        if not kept:
            return
        self.per_s.append(count / float(seconds))
        for name, pid in self.processes.items():
            self.cpu_ms.setdefault(name, []).append((cpu_seconds(pid) - before[name]) / count * 1000)

    @property
    def total_ms(self) -> list[float]:
        """The milliseconds of all processes per job, by round."""
        return [sum(times) for times in zip(*self.cpu_ms.values(), strict=True)]


def compare_small_jobs(
    table: Table,
    figures: Figures,
    services: LocalServices,
    image: str,
    mask: Mask,
    *,
    count: int,
    rounds: int,
) -> None:
    """Score jobs of one mask with an image in S3 by one worker of each release, in turn."""
    pythons = {"this release": Path(sys.executable)}
    old = install_release_0(BUILD / "release-0")
    if old is None:
        table.add_row("release 0", "not measured", NO_HISTORY)
    else:
        pythons["release 0"] = old
    with ExitStack() as stack:
        releases = {
            name: stack.enter_context(_release(services, python, image, mask)) for name, python in pythons.items()
        }
        for release in releases.values():
            release.score(50, kept=False)
        for _ in range(rounds):
            for release in releases.values():
                release.score(count)
    for name, release in releases.items():
        shares = {process: statistics.median(times) for process, times in release.cpu_ms.items()}
        table.add_row(
            f"jobs through one worker, {name}",
            f"{statistics.median(release.per_s):,.0f}/s",
            f"{statistics.median(release.total_ms):.1f} ms of processor time: "
            + ", ".join(f"{process} {ms:.2f}" for process, ms in shares.items()),
        )
        prefix = "queue.small_job_cpu_ms" if name == "this release" else "queue.release_0_small_job_cpu_ms"
        for process, ms in shares.items():
            figures[f"{prefix}_{process.lower()}"] = ms
    now = releases["this release"]
    figures["queue.demo_jobs_per_s"] = statistics.median(now.per_s)
    figures["queue.demo_job_cpu_ms"] = statistics.median(now.cpu_ms["worker"])
    if old is not None:
        _compare(table, figures, now, releases["release 0"])
    for crops in (1, 8):
        ms = _forward_ms(crops)
        table.add_row(f"the model's forward alone, in batches of {crops}", f"{ms:.2f} ms", "per crop, on one core")
        figures[f"queue.forward_ms_per_crop_in_{crops}"] = ms


def _compare(table: Table, figures: Figures, now: _Release, before: _Release) -> None:
    ratio = statistics.median(mine / theirs for mine, theirs in zip(now.per_s, before.per_s, strict=True))
    pairs = zip(now.cpu_ms["worker"], before.cpu_ms["worker"], strict=True)
    cpu_ratio = statistics.median(theirs / mine for mine, theirs in pairs)
    total_ratio = statistics.median(theirs / mine for mine, theirs in zip(now.total_ms, before.total_ms, strict=True))
    table.add_row("jobs per second", f"{ratio:.2f}", "x release 0's")
    table.add_row("... of the worker's processor time", f"{cpu_ratio:.2f}", "x release 0's")
    table.add_row("... of all processes' processor time", f"{total_ratio:.2f}", "x release 0's")
    figures["queue.small_jobs_ratio"] = ratio
    figures["queue.small_jobs_cpu_ratio"] = cpu_ratio
    figures["queue.small_jobs_total_cpu_ratio"] = total_ratio


def _forward_ms(crops: int) -> float:
    """Return a core's milliseconds for a crop in a batch of so many, the shortest of 20 rounds."""
    settings = WorkerSettings(weights=DEMO_WEIGHTS, prompts="demo", device="cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, *_ = load_compared_model(settings, torch.device("cpu"))
        batch = np.zeros((crops, model.image_size, model.image_size, 3), np.uint8)
        rounds = []
        for _ in range(20):
            started = time.thread_time()
            for _ in range(5):
                model.encode_images(batch)
            rounds.append((time.thread_time() - started) / 5)
    finally:
        torch.set_num_threads(threads)
    return min(rounds) / crops * 1000


@contextmanager
def _release(services: LocalServices, python: Path, image: str, mask: Mask) -> Iterator[_Release]:
    namespace = f"small-{uuid.uuid4().hex[:8]}"
    environment = {
        **services.environment(),
        "MASKSCORE_NAMESPACE": namespace,
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_BUCKETS": "*",
        "MASKSCORE_DEVICE": "cpu",
        "MASKSCORE_LOG_LEVEL": "WARNING",
    }
    script = Path(__file__).parent / "small_jobs.py"
    # -P: the script's folder has a `queue.py`, as Python itself has.
    command = [str(python), "-P", str(script), services.redis.url, namespace, image]
    # The tests' folder holds nothing that a release is to find.
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (
        start_worker({**environment, "PYTHONPATH": ""}, python=python) as worker,
        subprocess.Popen(command, env=alone, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as producer,
    ):
        try:
            assert producer.stdin is not None
            producer.stdin.write(json.dumps(mask.model_dump(mode="json")["segmentation"]) + "\n")
            processes = {
                "worker": worker.pid,
                "Redis": services.redis.pid,
                "S3": services.s3.pid,
                "producer": producer.pid,
            }
            yield _Release(processes, producer)
        finally:
            producer.kill()
