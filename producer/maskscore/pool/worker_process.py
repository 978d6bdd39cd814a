"""One worker process: it dies with the pool, signals when it takes jobs, and logs through the pool's stderr."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskscore.pool.worker_slots import WorkerSlot
from maskscore.processes import child_command, deferred_signals

__all__ = ["WorkerProcess", "exit_reason"]

_OUTPUT_END_S = 2.0


class WorkerProcess:
    """A process running ``command`` at a slot; on Linux it is killed when the pool's main thread ends.

    Parameters
    ----------
    number: counts the pool's processes from 1.
    environment: the variables of all workers; the slot's go over them.
    folder: an existing folder for the file that says that it takes jobs.

    Raises :class:`OSError` or :class:`RuntimeError` where the system gives no process or no thread.
    """

    def __init__(
        self, number: int, slot: WorkerSlot, command: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        self.number = number
        self.slot = slot
        self._ready_file = folder / f"ready-{number}"
        # An interrupt between fork and the note of the pid would leave a process that nobody knows.
        with deferred_signals():
            self._popen = subprocess.Popen(
                child_command(command, die_with_parent=True),
                env={**environment, **slot.environment, "MASKSCORE_READY_FILE": str(self._ready_file)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the pool; it tells its workers.
                start_new_session=True,
            )
        try:
            self._pin()
            self._output_thread = threading.Thread(target=self._forward_output, name=f"output-{number}", daemon=True)
            self._output_thread.start()
        except BaseException:
            # Nobody would know of it.
            self._popen.kill()
            self._popen.wait()
            raise

    def __str__(self) -> str:
        return f"worker {self.number} on {self.slot.name}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def status(self) -> int | None:
        """Return its exit code, or the negative number of the signal that ended it; ``None`` while it runs."""
        return self._popen.poll()

    def takes_jobs(self) -> bool:
        """Whether it has loaded its model and taken up its work."""
        return self._ready_file.exists()

    def terminate(self) -> None:
        """Ask it to drain; asked again, it gives back what runs."""
        self._popen.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._popen.kill()

    def close(self) -> None:
        """Forget it, whatever state it is in."""
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()
        self._output_thread.join(_OUTPUT_END_S)
        self._ready_file.unlink(missing_ok=True)

    def _pin(self) -> None:
        # It still is the launcher, with one thread; the threads of the worker inherit the cores.
        if self.slot.cores and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(self.pid, self.slot.cores)

    def _forward_output(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            for line in lines:
                text = line.decode("utf-8", "replace")
                # A worker that logs JSON says in each object who it is.
                line_shown = text if text.startswith("{") else f"[{self.slot.name} #{self.number}] {text}"
                # A worker must not wait because nobody reads what the pool says.
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.write(line_shown)
                    sys.stderr.flush()


def exit_reason(status: int) -> str:
    """Return ``exit code 70`` or ``signal SIGKILL``."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
