"""The registry of live workers: each worker writes a report into Redis every two seconds, with a time to live.

``{namespace}:worker:{name}`` holds the report as JSON; ``{namespace}:workers`` is a sorted set of the names, scored by
the time of the last report (Redis's clock). A worker that ends removes itself; one that is killed expires.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import redis
from pydantic import BaseModel, ConfigDict, ValidationError

from maskscore.schema import DEFAULT_MODEL_NAME
from maskscore.text import did_you_mean

__all__ = [
    "WORKER_TTL_S",
    "LiveWorker",
    "WorkerHeartbeat",
    "WorkerRegistry",
    "WorkerReport",
    "no_worker_sentence",
    "unserved_sentence",
]

log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_S: Final = 2.0
# A few reports may be late on a busy machine.
_LATE_S: Final = 3 * HEARTBEAT_INTERVAL_S
_ROUNDS_PER_CHECK: Final = 5
WORKER_TTL_S: Final = 15.0
"""Seconds without a report after which a worker does not count as alive."""


def no_worker_sentence(namespace: str) -> str:
    """Say that no worker of a namespace is alive, and what to do."""
    return (
        f"No worker is alive in the namespace {namespace!r} of this Redis, so queued jobs wait. Start one with "
        "`maskscore worker` or `maskscore up`; `maskscore top` shows those that there are."
    )


def unserved_sentence(unserved: Collection[str], served: Collection[str]) -> str:
    """Say which models no live worker serves, and what to do; ``served`` are those that some do."""
    names = ", ".join(repr(name) for name in sorted(unserved)[:5]) + (", ..." if len(unserved) > 5 else "")
    one = min(unserved)
    option = "" if one == DEFAULT_MODEL_NAME else f" --model-name {one}"
    others = f"live workers serve {', '.join(sorted(served))}" if served else "no worker is alive"
    meant = did_you_mean(one, served) if len(unserved) == 1 else ""
    return (
        f"No live worker serves the model{'s' if len(unserved) > 1 else ''} {names}, so jobs for "
        f"{'them' if len(unserved) > 1 else 'it'} wait ({others}{meant}). Start one with "
        f"`maskscore worker{option} --weights DIR`, or ask for another --model."
    )


class WorkerReport(BaseModel):
    """What a worker reports about itself.

    ``model`` is the name of the model that it serves.
    ``jobs_done`` counts attempts that ended, ``masks_done`` the masks of succeeded jobs, both since the start;
    ``masks_per_s`` and ``batch_fill`` (0 to 1) are of the last 10 s. The GPU's figures are ``None`` on a CPU, or where
    the driver does not say. Readers ignore fields that they do not know: workers of two releases may run side by side.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    host: str
    pid: int
    version: str
    device: str
    precision: str
    concurrency: int
    architecture: str
    weights_digest: str
    model: str = DEFAULT_MODEL_NAME
    stepped_down: tuple[str, ...] = ()
    started_at: datetime
    state: Literal["running", "draining"] = "running"
    jobs_done: int = 0
    masks_done: int = 0
    masks_per_s: float = 0.0
    in_flight: int = 0
    batch_fill: float = 0.0
    gpu_memory_used: int | None = None
    gpu_memory_total: int | None = None
    gpu_utilization: float | None = None


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker's last report, and how many seconds ago it was written, by Redis's clock."""

    report: WorkerReport
    age_s: float

    @property
    def late(self) -> bool:
        """Whether its next report is overdue."""
        return self.age_s > _LATE_S


class WorkerRegistry:
    """The workers of one namespace. Every method raises :class:`redis.RedisError` when Redis does not answer."""

    def __init__(self, client: redis.Redis, *, namespace: str) -> None:
        self._redis: Any = client
        self._prefix = f"{namespace}:worker:"
        self._names = f"{namespace}:workers"

    def write(self, report: WorkerReport) -> None:
        """Write or renew a worker's report."""
        now = self._now()
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.set(self._prefix + report.name, report.model_dump_json(), px=int(WORKER_TTL_S * 1000))
            pipeline.zadd(self._names, {report.name: now})
            pipeline.zremrangebyscore(self._names, "-inf", now - WORKER_TTL_S * 1000)
            # Written before Redis's clock was put back, by a worker that has not written since.
            pipeline.zremrangebyscore(self._names, now + WORKER_TTL_S * 1000, "+inf")
            pipeline.execute()

    def remove(self, name: str) -> None:
        """Remove a worker that has ended."""
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.delete(self._prefix + name)
            pipeline.zrem(self._names, name)
            pipeline.execute()

    def workers(self) -> list[LiveWorker]:
        """Return the live workers, by name. A report that cannot be read is left out."""
        now = self._now()
        seen = self._redis.zrangebyscore(
            self._names, now - WORKER_TTL_S * 1000, now + WORKER_TTL_S * 1000, withscores=True
        )
        if not seen:
            return []
        texts = self._redis.mget([self._prefix + name.decode() for name, _ in seen])
        workers = []
        for (name, written), text in zip(seen, texts, strict=True):
            if text is None:
                continue
            try:
                report = WorkerReport.model_validate_json(text)
            except ValidationError:
                log.warning("the report of worker %s cannot be read: it is of another release", name.decode())
                continue
            workers.append(LiveWorker(report, max(0.0, (now - written) / 1000)))
        return sorted(workers, key=lambda worker: worker.report.name)

    def count(self) -> int:
        """Return how many workers are alive."""
        now = self._now()
        return int(self._redis.zcount(self._names, now - WORKER_TTL_S * 1000, now + WORKER_TTL_S * 1000))

    def _now(self) -> float:
        seconds, micros = self._redis.time()
        return float(seconds * 1000 + micros / 1000)


class WorkerHeartbeat:
    """A thread that writes a worker's report every two seconds, and removes the worker at the end.

    Parameters
    ----------
    describe: returns the report as of now.
    find_missing_right: returns what Redis does not allow its user; called in every fifth round.
    """

    def __init__(
        self,
        registry: WorkerRegistry,
        describe: Callable[[], WorkerReport],
        find_missing_right: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._registry = registry
        self._describe = describe
        self._find_missing_right = find_missing_right
        self.refused: str | None = None
        """What Redis did not allow when it was last asked."""
        self._answered: float | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def silence_s(self) -> float | None:
        """Seconds since Redis last took a report; ``None`` before the first one."""
        return None if self._answered is None else time.monotonic() - self._answered

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and remove the worker; where Redis does not answer, its report expires."""
        self._closing.set()
        self._thread.join()
        try:
            self._registry.remove(self._describe().name)
        except redis.RedisError as error:
            log.debug("the worker could not be removed from the registry: %s", error)

    def _run(self) -> None:
        for round_number in itertools.count():
            try:
                self._registry.write(self._describe())
                if round_number % _ROUNDS_PER_CHECK == 0:
                    self.refused = self._find_missing_right()
                self._answered = time.monotonic()
            except redis.exceptions.NoPermissionError as error:
                self.refused = str(error)
            except redis.RedisError as error:
                log.debug("the report could not be written, trying again: %s", error)
            except Exception:
                log.exception("the report could not be written, trying again")
            if self._closing.wait(HEARTBEAT_INTERVAL_S):
                return
