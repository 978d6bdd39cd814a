"""``maskscore pool`` with real workers on CPU cores: changing load, a killed worker, a rolling restart."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from PIL import Image

from chaos.fleet import bare_environment
from maskscore import Batch, Client, ClientSettings, Job, JobState, Mask
from maskscore.broker.redis_connection import connect
from maskscore.devstack import LocalServices
from maskscore.ledger import Backlog, Ledger
from maskscore.masks import encode_mask
from maskscore.pool.worker_slots import available_cores
from maskscore_worker.demo.run import DEMO_WEIGHTS
from maskscore_worker.demo.scenes import draw_scene

DEADLINE_S = 280.0
LEAST_QUEUED = 40


class Pool:
    """The process, what it has said so far, and when."""

    def __init__(self, popen: subprocess.Popen[str], ledger: Ledger) -> None:
        self.popen = popen
        self._ledger = ledger
        self._began = time.monotonic()
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        with self.popen.stderr as lines:
            for line in lines:
                self.lines.append(line.rstrip())
                if " maskscore.pool: " in line:
                    self.note(line.split(" maskscore.pool: ")[1].rstrip())

    def note(self, text: str) -> None:
        """Print a line of the timeline."""
        print(f"{time.monotonic() - self._began:6.1f} s  {self.backlog_text()}  {text}", flush=True)

    def backlog(self) -> Backlog:
        return self._ledger.backlog()

    def backlog_text(self) -> str:
        found = self.backlog()
        return f"{found.waiting:>3} waiting {found.running:>2} running"

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in list(self.lines))

    def pid(self, number: int) -> int:
        found = re.search(rf"worker {number} on .* is started, pid (\d+)", "\n".join(self.lines))
        assert found
        return int(found[1])

    def wait(self, condition: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.popen.poll() is None, "\n".join(self.lines[-40:])
            assert time.monotonic() < deadline, "\n".join(self.lines[-40:])
            meanwhile()
            time.sleep(0.1)


def is_gone(pid: int) -> bool:
    """Whether no such process runs; one that nobody has buried is gone, too."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return True


@pytest.fixture
def environment(services: LocalServices, tmp_path: Path) -> dict[str, str]:
    return {
        **services.environment(),
        "MASKSCORE_NAMESPACE": f"pool-{uuid.uuid4().hex[:8]}",
        "MASKSCORE_WEIGHTS": str(DEMO_WEIGHTS),
        "MASKSCORE_PROMPTS": "demo",
        "MASKSCORE_FILE_ROOTS": str(tmp_path),
        "MASKSCORE_LEASE_S": "5",
    }


@contextmanager
def running_pool(environment: dict[str, str], *options: str) -> Iterator[Pool]:
    settings = ClientSettings(
        redis_url=environment["MASKSCORE_REDIS_URL"], namespace=environment["MASKSCORE_NAMESPACE"]
    )
    ledger = Ledger(connect(settings), namespace=settings.namespace, ttl_s=settings.result_ttl_s)
    popen = subprocess.Popen(
        [sys.executable, "-m", "maskscore", "pool", *options],
        env={**bare_environment(), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    pool = Pool(popen, ledger)
    try:
        yield pool
    finally:
        popen.kill()
        popen.wait()


class Load:
    """A producer that keeps so many jobs in the queue, as long as it is asked to."""

    def __init__(self, client: Client, folder: Path) -> None:
        scene = draw_scene(880_001)
        Image.fromarray(scene.image).save(folder / "scene.png")
        self._image = f"file://{folder}/scene.png"
        self._masks = [Mask(id=mask.id, segmentation=encode_mask(mask.mask)) for mask in scene.masks]
        self._client = client
        self._batch_id = f"load-{uuid.uuid4().hex[:8]}"
        self.submitted: list[str] = []

    def add(self, count: int) -> None:
        jobs = [
            Job.model_validate(
                {
                    "image": self._image,
                    "masks": self._masks,
                    "options": {"prompts": "demo"},
                }
            )
            for _ in range(count)
        ]
        self._client.submit_many(jobs, batch_id=self._batch_id)
        self.submitted += [job.job_id for job in jobs]

    def batch(self) -> Batch:
        return self._client.batch(self._batch_id)


@pytest.mark.timeout(900)
def test_load_comes_and_goes_and_nothing_is_lost(environment: dict[str, str], tmp_path: Path) -> None:
    settings = ClientSettings(
        redis_url=environment["MASKSCORE_REDIS_URL"], namespace=environment["MASKSCORE_NAMESPACE"]
    )
    options = ["--workers", "2", "--min", "0", "--jobs-per-worker", "20", "--cool-down", "4"]
    with Client(settings) as client, running_pool(environment, *options) as pool:
        load = Load(client, tmp_path)

        def feed() -> None:
            if pool.backlog().waiting < LEAST_QUEUED:
                load.add(LEAST_QUEUED)

        pool.wait(lambda: pool.count("workers: 0 to 2") == 1)
        pool.note("-- load arrives")
        pool.wait(lambda: pool.count("takes jobs,") == 2, feed)
        cores = available_cores()
        if len(cores) >= 2 and hasattr(os, "sched_getaffinity"):
            shares = [os.sched_getaffinity(pool.pid(number)) for number in (1, 2)]
            assert not shares[0] & shares[1]
            assert shares[0] | shares[1] == set(cores)

        pool.note("-- a worker is killed")
        os.kill(pool.pid(1), signal.SIGKILL)
        pool.wait(lambda: pool.count("takes jobs,") == 3, feed)
        assert pool.count("worker 1 .* ended by itself, signal SIGKILL") == 1

        pool.note("-- SIGHUP: a rolling restart")
        pool.popen.send_signal(signal.SIGHUP)
        pool.wait(lambda: pool.count("has drained in") == 2, feed)
        pool.wait(lambda: pool.count("takes jobs,") == 5, feed)

        pool.note(f"-- load ends, after {len(load.submitted)} jobs")
        load.batch().wait(timeout=DEADLINE_S)
        pool.note("-- the last job has ended")
        pool.wait(lambda: pool.count("has drained in") == 4)
        assert all(is_gone(pool.pid(number)) for number in range(1, 6))

        pool.note("-- one job more")
        load.add(1)
        pool.wait(lambda: pool.count("takes jobs,") == 6)
        load.batch().wait(timeout=DEADLINE_S)
        pool.note("-- SIGTERM")
        pool.popen.send_signal(signal.SIGTERM)
        assert pool.popen.wait(timeout=DEADLINE_S) == 0
        assert is_gone(pool.pid(6))

        statuses = client.statuses(load.submitted)
        assert {status.state for status in statuses} == {JobState.SUCCEEDED}
        counts = load.batch().counts()
        assert (counts.succeeded, counts.total) == (len(load.submitted), len(load.submitted))
        pool.note(f"-- {counts.succeeded} of {len(load.submitted)} jobs succeeded")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_the_workers_of_a_pool_that_is_killed_end_with_it(environment: dict[str, str]) -> None:
    with running_pool(environment, "--workers", "2", "--min", "2") as pool:
        pool.wait(lambda: pool.count("is started") == 2)
        pids = [pool.pid(1), pool.pid(2)]
        assert not any(map(is_gone, pids))
        pool.popen.kill()
        pool.popen.wait()
        deadline = time.monotonic() + DEADLINE_S
        while not all(map(is_gone, pids)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_pool_whose_workers_cannot_start_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"damaged")
    environment = {**environment, "MASKSCORE_WEIGHTS": str(tmp_path)}
    with running_pool(environment, "--workers", "1") as pool:
        assert pool.popen.wait(timeout=DEADLINE_S) != 0
        pool.note("it has ended")
        assert pool.count("open_clip_model.safetensors") >= 1
        assert pool.count("no worker can start") == 1
