"""The loop that keeps as many workers as are wanted: starts, restarts, drains and replaces them."""

from __future__ import annotations

import logging
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from maskscore.pool.restart_backoff import RestartBackoff
from maskscore.pool.scaling import BacklogSample, PoolLimits, workers_wanted
from maskscore.pool.worker_process import WorkerProcess, exit_reason
from maskscore.pool.worker_slots import WorkerSlot

__all__ = ["Supervisor"]

log = logging.getLogger("maskscore.pool")

_TICK_S = 0.1
# `maskscore worker` ends with these where its settings or its weights are wrong: it would do so again.
_CANNOT_START = (1, 2)
_HTTP_PORT = "MASKSCORE_HTTP_PORT"


@dataclass(eq=False)
class _Member:
    process: WorkerProcess
    started: float
    ready_at: float | None = None
    drained_at: float | None = None
    instead_of: _Member | None = None
    http_port: int | None = None

    @property
    def draining(self) -> bool:
        return self.drained_at is not None


class Supervisor:
    """Runs in the main thread: the kernel ends a worker with the thread that started it.

    Parameters
    ----------
    slots: where workers may run, one at each; while one is replaced or drains, there may be two. Those of each model
        are scaled by themselves, within the same limits.
    command, environment: what a worker is; the slot's variables go over the latter.
    samples: returns the latest samples of a model's backlog.
    load_s: seconds that a worker may take until it takes jobs; then it is killed and counts as dead.
    drain_s: seconds that a worker may take to drain, more than its own grace; then it is killed.
    restarts: makes the memory of one slot's deaths.
    """

    def __init__(
        self,
        slots: Sequence[WorkerSlot],
        command: Sequence[str],
        environment: Mapping[str, str],
        samples: Callable[[str], Sequence[BacklogSample]],
        limits: PoolLimits,
        *,
        load_s: float,
        drain_s: float,
        restarts: Callable[[], RestartBackoff] = RestartBackoff,
    ) -> None:
        self._slots = [(slot, restarts()) for slot in slots]
        self._command = command
        self._environment = environment
        self._samples = samples
        self._limits = limits
        self._load_s = load_s
        self._drain_s = drain_s
        self._folder = Path()
        self._members: list[_Member] = []
        self._started = 0
        self._targets = {slot.model: limits.least for slot in slots}
        self._signals: list[int] = []
        self._stops = 0
        self._to_replace: list[_Member] = []
        self._replacement: _Member | None = None
        self._ever_ready = False
        self._exit_code = 0

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, and return the exit code when the last worker has ended.

        At a second signal the workers give back what runs, at a third one they are killed. SIGHUP replaces every worker
        by a new one. Where no worker could ever start, its exit code is returned.
        """
        with tempfile.TemporaryDirectory(prefix="maskscore-pool-") as folder, self._queued_signals():
            self._folder = Path(folder)
            try:
                while not self._stops or self._members:
                    self._step(time.monotonic())
                    time.sleep(_TICK_S)
            finally:
                # Each of them, also where one cannot be.
                with ExitStack() as closing:
                    for member in self._members:
                        closing.callback(member.process.close)
        log.info("stopped")
        return self._exit_code

    @contextmanager
    def _queued_signals(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, lambda number, _: self._signals.append(number))
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _step(self, now: float) -> None:
        while self._signals:
            self._handle_signal(self._signals.pop(0), now)
        for member in list(self._members):
            self._check(member, now)
        if not self._stops:
            self._replace(now)
            for model in self._targets:
                self._scale(model, now)

    def _handle_signal(self, number: int, now: float) -> None:
        if number != signal.SIGHUP:
            self._stop(now)
        elif not self._stops:
            self._to_replace = [member for member in self._staying() if member is not self._replacement]
            log.info("SIGHUP; workers to replace, one after the other: %d", len(self._to_replace))

    def _stop(self, now: float) -> None:
        self._stops += 1
        if self._stops == 1:
            log.info("stopping; workers that finish what runs: %d (a second signal ends them)", len(self._members))
            for member in self._members:
                self._drain(member, now)
            return
        log.warning("the workers %s", "give back what runs" if self._stops == 2 else "are killed")
        for member in self._members:
            member.process.terminate() if self._stops == 2 else member.process.kill()

    def _check(self, member: _Member, now: float) -> None:
        process = member.process
        status = process.status()
        if status is not None:
            self._members.remove(member)
            process.close()
            self._record_exit(member, status, now)
        elif member.drained_at is not None:
            if now - member.drained_at > self._drain_s:
                log.error("%s has not drained within %g s and is killed", process, self._drain_s)
                process.kill()
        elif member.ready_at is None and process.takes_jobs():
            member.ready_at = now
            self._ever_ready = True
            log.info("%s takes jobs, %.1f s after its start", process, now - member.started)
        elif member.ready_at is None and now - member.started > self._load_s:
            log.error("%s takes no jobs after %g s and is killed", process, self._load_s)
            process.kill()

    def _record_exit(self, member: _Member, status: int, now: float) -> None:
        if member.drained_at is not None:
            log.info("%s has drained in %.1f s, %s", member.process, now - member.drained_at, exit_reason(status))
            return
        pause = self._restarts(member.process.slot).died(now, ready_at=member.ready_at)
        log.warning("%s ended by itself, %s; next start in %g s", member.process, exit_reason(status), pause)
        if not self._ever_ready and status in _CANNOT_START:
            of_model = f" of the model {member.process.slot.model}" if len(self._targets) > 1 else ""
            log.error("no worker%s can start; correct what it says", of_model)
            self._exit_code = status
            self._stop(now)

    def _replace(self, now: float) -> None:
        new = self._replacement
        if new is not None:
            if new not in self._members:
                log.error("%s could not take over; what was not replaced yet stays as it is", new.process)
                self._to_replace = []
            elif new.ready_at is None:
                return
            elif new.instead_of is not None and new.instead_of in self._members:
                self._drain(new.instead_of, now)
            self._replacement = None
        while self._to_replace and self._replacement is None:
            old = self._to_replace[0]
            if old in self._members and not old.draining:
                if not self._restarts(old.process.slot).over(now):
                    return
                self._replacement = self._start(old.process.slot, now, instead_of=old)
                if self._replacement is None:
                    return
            self._to_replace.pop(0)

    def _scale(self, model: str, now: float) -> None:
        samples, before = self._samples(model), self._targets[model]
        target = workers_wanted(samples, before, self._limits)
        if target != before:
            jobs = samples[-1].jobs if samples else None
            of_model = f" of the model {model}" if len(self._targets) > 1 else ""
            log.info("jobs%s: %s; workers: %d → %d", of_model, "unknown" if jobs is None else jobs, before, target)
            self._targets[model] = target
        staying = [member for member in self._staying() if member.process.slot.model == model]
        for slot in self._free_places(model, now)[: max(0, target - len(staying))]:
            self._start(slot, now)
        if self._replacement is None and len(staying) > target:
            for member in staying[target:]:
                self._drain(member, now)

    def _staying(self) -> list[_Member]:
        """The workers that are here to stay, the oldest first; one that is to take over counts when it has."""
        staying = [member for member in self._members if not member.draining]
        return [member for member in staying if member.instead_of is None or member.instead_of not in staying]

    def _free_places(self, model: str, now: float) -> list[WorkerSlot]:
        """Places of a model without a worker that stays; first those where none drains either."""
        taken = [member.process.slot for member in self._members if not member.draining]
        draining = [member.process.slot for member in self._members if member.draining]
        free = [
            slot
            for slot, restarts in self._slots
            if slot.model == model and restarts.over(now) and not any(slot is other for other in taken)
        ]
        return sorted(free, key=lambda slot: any(slot is other for other in draining))

    def _restarts(self, slot: WorkerSlot) -> RestartBackoff:
        return next(restarts for other, restarts in self._slots if other is slot)

    def _start(self, slot: WorkerSlot, now: float, *, instead_of: _Member | None = None) -> _Member | None:
        """Start a worker; ``None`` where the system gives no process or thread just now: those that run go on."""
        self._started += 1
        http_port = self._free_http_port()
        environment = {**self._environment, **({_HTTP_PORT: str(http_port)} if http_port else {})}
        try:
            process = WorkerProcess(self._started, slot, self._command, environment, self._folder)
        except (OSError, RuntimeError) as error:
            pause = self._restarts(slot).died(now, ready_at=None)
            log.error("no worker could be started on %s: %s; next try in %g s", slot.name, error, pause)
            return None
        member = _Member(process, now, instead_of=instead_of, http_port=http_port)
        self._members.append(member)
        purpose = f", instead of worker {instead_of.process.number}" if instead_of else ""
        log.info("%s is started, pid %d%s", process, process.pid, purpose)
        return member

    def _free_http_port(self) -> int | None:
        """Each worker needs a port of its own, from the one that is set upwards."""
        first = int(self._environment.get(_HTTP_PORT) or 0)
        taken = [member.http_port for member in self._members]
        return next(port for port in count(first) if port not in taken) if first else None

    def _drain(self, member: _Member, now: float) -> None:
        if not member.draining:
            member.drained_at = now
            log.info("%s is drained", member.process)
            member.process.terminate()
