"""Load while something breaks, and the bookkeeping afterwards: every accepted job, and in which way it ended."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import redis

from chaos.jobs import Corpus
from maskscore import Client, Job, JobState, JobStatus, ServiceUnavailable
from maskscore.ledger import Ledger

__all__ = ["Load", "Outcome", "Record", "Redelivery", "Resumption", "Row"]

_POLL_S = 0.05
_CHUNK = 10


@dataclass(slots=True)
class Outcome:
    """What became of the accepted jobs.

    ``lost``: no visible end; ``doubled``: more than one event in the batch's stream; ``silent``: ended without an
    event; ``wrong``: scores other than the undisturbed run's.
    """

    accepted: int = 0
    succeeded: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    attempts: Counter[int] = field(default_factory=Counter)
    longest_wait_s: float = 0.0
    counted: tuple[int, int, int] = (0, 0, 0)
    """What the batch itself says: all, succeeded, ended without a result."""

    def __str__(self) -> str:
        failures = ", ".join(f"{count} {code}" for code, count in self.failed.items()) or "none"
        attempts = ", ".join(f"{count} x {number}" for number, count in sorted(self.attempts.items()))
        return (
            f"{self.accepted} accepted, {self.succeeded} succeeded, failed: {failures}; {len(self.lost)} lost, "
            f"{len(self.doubled)} doubled, {len(self.silent)} without an event, {len(self.wrong)} wrong; "
            f"attempts: {attempts}; longest wait for a claim {self.longest_wait_s:.1f} s"
        )

    def check(self, *, failed: Mapping[str, int] | None = None) -> None:
        """Assert that every accepted job has ended once, visibly and with the right scores.

        ``failed`` says how many have to have failed with which code.
        """
        assert self.accepted, "no job was accepted, so nothing was tried"
        assert not self.lost, f"{len(self.lost)} of {self.accepted} jobs were lost: {self.lost[:5]}"
        assert not self.doubled, f"{len(self.doubled)} jobs ended twice in the batch's stream: {self.doubled[:5]}"
        assert not self.silent, f"{len(self.silent)} jobs ended without an event: {self.silent[:5]}"
        assert not self.wrong, f"{len(self.wrong)} results differ from the undisturbed run's: {self.wrong[:3]}"
        assert dict(self.failed) == dict(failed or {})
        assert self.succeeded == self.accepted - sum(self.failed.values())
        assert self.counted == (self.accepted, self.succeeded, sum(self.failed.values()))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a fault, what became of the jobs, and the seconds to recover.

    ``recovery_s``: from a worker's death (or freezing) to the moment when others have taken its jobs; from the end of
    an outage until each worker has ended a job that it took afterwards.
    """

    fault: str
    outcome: Outcome
    recovery_s: Sequence[float] = ()


Record = Callable[[Row], None]


class Load:
    """Submits jobs of one batch in a thread, keeps some ahead of the workers, and counts what becomes of them.

    Parameters
    ----------
    client: submits.
    observer, server: a client that reads, and a :class:`redis.Redis`, which no fault of the proxy reaches.
    batch_id: of all jobs; the job of number n has the id ``{batch_id}-{n}``.
    ahead: most jobs that have not ended at a time; ``per_s``: most to submit per second.
    special: jobs to submit in place of the corpus's, by number; their scores are not compared.
    """

    def __init__(
        self,
        client: Client,
        observer: Client,
        server: Any,
        corpus: Corpus,
        batch_id: str,
        *,
        ahead: int = 150,
        per_s: float = math.inf,
        special: Mapping[int, Job] | None = None,
    ) -> None:
        self._client = client
        self._observer = observer
        self._server = server
        self._ledger = Ledger(server, namespace=client.settings.namespace, ttl_s=1)
        self._corpus = corpus
        self.batch_id = batch_id
        self._ahead = ahead
        self._per_s = per_s
        self._special = dict(special or {})
        self._submitting = threading.Lock()
        self._lock = threading.Lock()
        self._accepted = 0
        self._wanted = 0
        self.refusals: list[str] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def accepted(self) -> int:
        """How many submits were confirmed."""
        with self._lock:
            return self._accepted

    def job_id(self, number: int) -> str:
        return f"{self.batch_id}-{number}"

    def job(self, number: int) -> Job:
        """The job of this number, as it is submitted."""
        special = self._special.get(number)
        job_id = self.job_id(number)
        return special.model_copy(update={"job_id": job_id}) if special else self._corpus.job(number, job_id)

    def start(self, most: int = 1_000_000) -> None:
        """Submit in the background until :meth:`finish`, at most so many."""
        self._wanted = most
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def submit_again(self) -> None:
        """Submit all that was accepted so far once more, as a producer does whose Redis has lost its last seconds."""
        with self._submitting:
            for start in range(0, self.accepted, 200):
                self._submit([self.job(number) for number in range(start, min(start + 200, self.accepted))])

    def wait_accepted(self, count: int) -> None:
        """Wait until so many jobs are accepted, however long it takes; the test's own time limit ends a hang."""
        while self.accepted < count and self._thread is not None and self._thread.is_alive():
            time.sleep(_POLL_S)
        self.reraise()

    def ended(self) -> int:
        """How many events the batch's stream has."""
        return int(self._server.xlen(self._stream) or 0)

    def wait_ended(self, count: int, patience_s: float) -> bool:
        """Wait until so many jobs have ended; return false when none has for ``patience_s`` seconds."""
        moved = time.monotonic()
        last = -1
        while (now := self.ended()) < count:
            if now != last:
                last, moved = now, time.monotonic()
            if time.monotonic() - moved > patience_s:
                return False
            time.sleep(_POLL_S)
        return True

    def finish(self, patience_s: float) -> Outcome:
        """Submit no more, wait until all have ended or nothing moves for ``patience_s`` seconds, and count."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self.reraise()
        return self.count(range(self._accepted), patience_s)

    def count(self, numbers: Sequence[int], patience_s: float) -> Outcome:
        """Wait for the jobs of these numbers and count what became of them."""
        statuses = self._wait([self.job_id(number) for number in numbers], patience_s)
        outcome = Outcome(accepted=len(numbers))
        entries = self._server.xrange(self._stream)
        events = Counter(fields[b"job_id"].decode() for _, fields in entries)
        for number in numbers:
            status = statuses[self.job_id(number)]
            outcome.attempts[status.attempts] += 1
            if status.claimed_at is not None and status.attempts == 1:
                waited = (status.claimed_at - status.submitted_at).total_seconds()
                outcome.longest_wait_s = max(outcome.longest_wait_s, waited)
            if not status.state.ended:
                outcome.lost.append(status.job_id)
                continue
            if events[status.job_id] != 1:
                (outcome.doubled if events[status.job_id] else outcome.silent).append(status.job_id)
            if status.state is JobState.SUCCEEDED:
                outcome.succeeded += 1
                if number not in self._special:
                    result = self._observer.get(status.job_id)
                    wrong = self._corpus.wrong(number, result)
                    outcome.wrong += [f"{status.job_id}: {difference}" for difference in wrong[:1]]
            else:
                outcome.failed[status.error.code if status.error else str(status.state)] += 1
        counts = self._observer.batch(self.batch_id).counts()
        outcome.counted = (counts.total, counts.succeeded, counts.ended - counts.succeeded)
        return outcome

    @property
    def _stream(self) -> str:
        return f"{self._client.settings.namespace}:batch:events:{self.batch_id}"

    def _wait(self, job_ids: Sequence[str], patience_s: float) -> dict[str, JobStatus]:
        statuses: dict[str, JobStatus] = {}
        moved = time.monotonic()
        while True:
            going = [job_id for job_id in job_ids if job_id not in statuses or not statuses[job_id].state.ended]
            found = [
                status for n in range(0, len(going), 500) for status in self._observer.statuses(going[n : n + 500])
            ]
            if any(status.job_id not in statuses or status != statuses[status.job_id] for status in found):
                moved = time.monotonic()
            statuses.update((status.job_id, status) for status in found)
            if all(status.state.ended for status in found) or time.monotonic() - moved > patience_s:
                return statuses
            time.sleep(4 * _POLL_S)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set() and self._accepted < self._wanted:
                if self._outstanding() >= self._ahead:
                    time.sleep(_POLL_S / 5)
                    continue
                size = min(_CHUNK, self._wanted - self._accepted)
                with self._submitting:
                    self._submit([self.job(self._accepted + n) for n in range(size)])
                    with self._lock:
                        self._accepted += size
                self._stopping.wait(size / self._per_s)
        except BaseException as error:
            self._error = error

    def _submit(self, jobs: list[Job]) -> None:
        """Submit until it is confirmed: what was refused may have been written down, and is submitted again."""
        while True:
            try:
                self._client.submit_many(jobs, batch_id=self.batch_id)
                return
            except ServiceUnavailable as error:
                self.refusals.append(str(error))
                time.sleep(2 * _POLL_S)

    def _outstanding(self) -> int:
        try:
            backlog = self._ledger.backlog()
            return backlog.waiting + backlog.running + backlog.delayed
        except redis.RedisError:
            return self._ahead  # down: that is the fault of the day

    def reraise(self) -> None:
        """Raise what ended the submitting, if anything has."""
        if self._error is not None:
            raise AssertionError(f"the load could not be submitted: {self._error!r}") from self._error


class Redelivery:
    """From a worker's death to the moment when another has taken its jobs, by Redis's clock."""

    def __init__(self, client: Client, server: Any, worker: str) -> None:
        self._client = client
        self._server = server
        seconds, micros = server.time()
        self._since = seconds + micros / 1e6
        running = server.zrange(f"{client.settings.namespace}:running", 0, -1)
        statuses = client.statuses(job_id.decode() for job_id in running)
        self._waiting = {s.job_id for s in statuses if s.worker == worker and s.state is JobState.RUNNING}
        self.jobs = sorted(self._waiting)
        self.seconds: dict[str, float] = {}

    def poll(self) -> bool:
        """Look again; return whether all of them are taken (or ended)."""
        for status in self._client.statuses(self._waiting):
            moments = [moment.timestamp() for moment in (status.claimed_at, status.finished_at) if moment]
            later = [moment for moment in moments if moment > self._since]
            if later:
                self.seconds[status.job_id] = min(later) - self._since
                self._waiting.discard(status.job_id)
        return not self._waiting

    def wait(self, patience_s: float) -> float:
        """Wait until all are taken; return the longest time in seconds, infinite where some never were."""
        deadline = time.monotonic() + patience_s
        while not self.poll():
            if time.monotonic() > deadline:
                self.seconds.update(dict.fromkeys(self._waiting, math.inf))
                break
            time.sleep(_POLL_S)
        return max(self.seconds.values(), default=0.0)


class Resumption:
    """From the end of a fault to the moment when each worker has ended a job that it took afterwards, by Redis's clock.

    A claim alone proves nothing: Redis may carry out what the worker sent, and gave up on, during the fault.
    """

    def __init__(self, client: Client, server: Any, load: Load, workers: Sequence[str]) -> None:
        self._client = client
        self._load = load
        seconds, micros = server.time()
        self._since = seconds + micros / 1e6
        self._workers = set(workers)
        self._ended: set[int] = set()
        self.seconds: dict[str, float] = {}

    def instead(self, old: str, new: str) -> None:
        """Wait for the worker that was started in place of another."""
        self._workers = self._workers - {old} | {new}
        self.seconds.pop(old, None)

    def poll(self) -> bool:
        """Look again; return whether all have done a job."""
        numbers = [number for number in range(self._load.accepted) if number not in self._ended]
        for start in range(0, len(numbers), 500):
            some = numbers[start : start + 500]
            for number, status in zip(some, self._client.statuses(map(self._load.job_id, some)), strict=True):
                if not status.state.ended:
                    continue
                self._ended.add(number)
                if status.worker not in self._workers or not status.claimed_at or not status.finished_at:
                    continue
                if status.claimed_at.timestamp() > self._since:
                    done = status.finished_at.timestamp() - self._since
                    self.seconds[status.worker] = min(done, self.seconds.get(status.worker, math.inf))
        return self.seconds.keys() == self._workers

    def wait(self, patience_s: float) -> float:
        """Wait until all have done a job; return the longest time in seconds, infinite where some never did."""
        deadline = time.monotonic() + patience_s
        while not self.poll():
            self._load.reraise()
            if time.monotonic() > deadline:
                self.seconds.update(dict.fromkeys(self._workers - self.seconds.keys(), math.inf))
                break
            time.sleep(2 * _POLL_S)
        return max(self.seconds.values(), default=0.0)
