"""Shards of a batch whose requests to S3 are watched, so that a fault comes where it is wanted."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable

from chaos.chaos_profile import PROFILE
from chaos.deployment import Deployment
from chaos.fleet import Worker
from chaos.scenario import Outcome
from chaos.shard_corpus import ShardCorpus, objects_below
from maskscore import JobState, JobStatus

__all__ = ["RandomKills", "ShardRun"]

_MOST_ATTEMPTS = 2
_POLL_S = 0.05

AtRequest = Callable[[str, Worker], bool]


class ShardRun:
    """Shards of the corpus as one batch of a deployment.

    Parameters
    ----------
    tars: how many there are, beside the list; without it, all of them without the list.

    ``at``, where set, is called with a request to S3 (``PUT /bucket/key``) of these shards and the worker that makes
    it, before it is passed on; false drops the connection instead. Several threads may call it at once.
    """

    def __init__(self, deployment: Deployment, corpus: ShardCorpus, name: str, tars: int | None = None) -> None:
        self._deployment, self._corpus = deployment, corpus
        self.at: AtRequest | None = None
        self.batch_id = name
        self.shards = corpus.shards(name, tars)
        self.ids = [shard.shard_id for shard in self.shards]
        self.replaced: list[str] = []
        """Files of parts that were there when they were stored."""

    def __enter__(self) -> ShardRun:
        self._deployment.s3_proxy.watch = self._watch
        return self

    def __exit__(self, *_: object) -> None:
        self._deployment.s3_proxy.pass_on()

    def submit(self) -> None:
        """Submit all shards."""
        self._deployment.client.submit_many(self.shards, batch_id=self.batch_id)

    def held(self, worker: Worker) -> list[JobStatus]:
        """Return the shards that a worker has in hand."""
        statuses = self._deployment.observer.statuses(self.ids)
        return [status for status in statuses if status.worker == worker.name and status.state is JobState.RUNNING]

    def wait(self) -> bool:
        """Wait until all shards have ended; workers that have ended are replaced meanwhile.

        Return false when nothing has moved for as long as the profile is patient.
        """
        moved, last = time.monotonic(), None
        while True:
            for worker in list(self._deployment.fleet.workers):
                if not worker.alive():
                    self._deployment.fleet.replace(worker)
            statuses = self._deployment.observer.statuses(self.ids)
            if all(status.state.ended for status in statuses):
                return True
            if statuses != last:
                moved, last = time.monotonic(), statuses
            if time.monotonic() - moved > PROFILE.patience_s:
                return False
            time.sleep(_POLL_S)

    def objects(self) -> set[str]:
        """Return the names of all objects below the output."""
        return objects_below(self.shards[0].output_uri)

    def outcome(self) -> Outcome:
        """Compare the tables with those of the undisturbed run."""
        return self._corpus.outcome(self._deployment.observer, self.shards)

    def check(self, outcome: Outcome) -> None:
        """Assert that every row is there once and as in the undisturbed run."""
        outcome.check(failed=self._corpus.failures(self.shards))

    def _watch(self, request: str, port: int) -> bool:
        if not any(f"/{folder}/" in request for folder in (self.batch_id, "tars", "lists")):
            return True
        # A part that is there is read before it is replaced.
        if request.startswith("GET") and f"/{self.batch_id}/" in request:
            self.replaced.append(request)
        worker = self._deployment.fleet.owner_of(port)
        return worker is None or self.at is None or self.at(request, worker)


class RandomKills:
    """Kills the worker that makes one of the requests whose turns are drawn by chance, before any of them is passed on.

    Or up to 50 ms later: between the two files of a part, or after both and before they are committed. Workers are
    spared whose shards were lost twice since their last part: the third time, an image is taken for what kills them.

    Parameters
    ----------
    within: all kills come in so many requests, if no worker is spared.
    """

    def __init__(self, run: ShardRun, kills: int, within: int, *, seed: int) -> None:
        self._run = run
        self._chance = random.Random(seed)
        self._turns = sorted(self._chance.sample(range(within // 10, within), kills))
        self._asked = 0
        self._lock = threading.Lock()
        self.pids: list[int] = []

    def at(self, request: str, worker: Worker) -> bool:
        """Count a request; false where its worker was killed before it was passed on."""
        with self._lock:
            self._asked += 1
            if not self._turns or self._asked < self._turns[0] or worker.pid in self.pids:
                return True
            held = self._run.held(worker)
            if not held or any(status.attempts >= _MOST_ATTEMPTS for status in held):
                return True
            del self._turns[0]
            self.pids.append(worker.pid)
            before = self._chance.random() < 0.5
            later_s = self._chance.uniform(0, 0.05)
        print(
            f"  kill {len(self.pids)}: {'before' if before else 'after'} {request}, {len(held)} shards in hand",
            flush=True,
        )
        if before:
            worker.signal(signal.SIGKILL)
            return False
        threading.Timer(later_s, _kill, [worker]).start()
        return True


def _kill(worker: Worker) -> None:
    if worker.alive():
        worker.signal(signal.SIGKILL)
