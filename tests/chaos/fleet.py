"""Real worker processes, signalled and replaced one by one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from worker_process import WorkerProcess

__all__ = ["Fleet", "Worker", "bare_environment"]

_GRACE_S = 5.0
_POLL_S = 0.02


def bare_environment() -> dict[str, str]:
    """This process's variables without any ``MASKSCORE_…``: what is set for the tests is no setting of a worker."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MASKSCORE_")}


class Worker(WorkerProcess):
    """One worker; :meth:`launch` does not wait, since loading takes a while."""

    def __init__(self, number: int, directory: Path, hook: Path | None = None) -> None:
        super().__init__(directory, hook)
        self.number = number

    @property
    def name(self) -> str:
        """What it calls itself in the ledger."""
        return f"{socket.gethostname()}-{self.pid}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process and no other."""
        os.kill(self.pid, number)

    def wait_gone(self, timeout: float) -> bool:
        """Wait for the process's end; return whether it came within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def terminate(self) -> None:
        """Ask it to end, whatever state it is in, and do not wait."""
        if self.alive():
            self.signal(signal.SIGCONT)
            super().terminate()

    def last_words(self) -> str:
        """Why it ended, if it has said so: its last line of level CRITICAL or ERROR."""
        written = self.log.read_text("utf-8", "replace")
        lines = [line for line in written.splitlines() if " CRITICAL " in line or " ERROR " in line]
        return lines[-1] if lines else "(it said nothing)"


class Fleet:
    """Workers of one namespace. Signals go to single processes by their pid.

    Parameters
    ----------
    environment: the variables of every worker.
    directory: each process gets a folder in it, with its log.
    """

    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        self.environment = dict(environment)
        self._directory = directory
        self._started = 0
        self.workers: list[Worker] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every worker."""
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.stop(_GRACE_S)
        self.workers = []

    def add(self, hook: Path | None = None, **more: str) -> Worker:
        """Launch one worker more, with ``more`` variables and a hook of its own; it takes jobs some seconds later."""
        self._started += 1
        worker = Worker(self._started, self._directory / f"worker-{self._started}", hook)
        worker.launch({**bare_environment(), **self.environment, **more})
        self.workers.append(worker)
        return worker

    def replace(self, worker: Worker) -> Worker:
        """End a worker, if it has not ended, and launch another in its place, as a supervisor does."""
        self.drop(worker)
        return self.add()

    def drop(self, worker: Worker) -> None:
        """End a worker for good."""
        worker.stop(_GRACE_S)
        self.workers.remove(worker)

    def bring_to(self, size: int) -> None:
        """Have exactly ``size`` workers that take jobs: the dead are replaced, those too many ended."""
        for worker in list(self.workers):
            if not worker.alive():
                self.replace(worker)
        while len(self.workers) < size:
            self.add()
        for worker in self.workers[size:]:
            self.drop(worker)
        for worker in self.workers:
            worker.wait()

    def ready(self) -> list[Worker]:
        """The workers that take jobs."""
        return [worker for worker in self.workers if worker.ready()]

    def owner_of(self, port: int) -> Worker | None:
        """The worker whose end of a connection has this local port (Linux: ``/proc``)."""
        inode = _socket_inode(port)
        if inode is None:
            return None
        for worker in self.workers:
            if worker.alive() and _holds(worker.pid, f"socket:[{inode}]"):
                return worker
        return None


def _socket_inode(port: int) -> str | None:
    # proc(5): local_address is the address and the port in hexadecimal; the tenth field is the inode.
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}":
            return fields[9]
    return None


def _holds(pid: int, target: str) -> bool:
    # Descriptors come and go while they are listed.
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            if str(entry.readlink()) == target:
                return True
    return False
