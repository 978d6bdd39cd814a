"""Workers as processes of their own, forked from one that has imported PyTorch and all else.

What a worker imports takes longer than all that a test does with it: some 8 seconds of processor time. So a server of
:mod:`multiprocessing` imports it once per test process, and each worker is forked from there. It is a process like any
other then: it has a pid, reads its settings from its variables, loads the model and runs the command ``worker``.
Variables that Python reads as it starts (``PYTHONPATH``) have no effect.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from maskscore.cli import main
from maskscore.devstack.server_process import LocalServiceError, ServerDiedError

__all__ = ["WorkerProcess", "start_worker"]

_LOADING_S = 240.0
_DRAIN_S = 20.0
_POLL_S = 0.02
_TAIL_LINES = 15
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["maskscore_worker.main", "maskscore.cli.worker", "boto3"])


class WorkerProcess:
    """A worker that works in ``directory`` and writes to ``log`` there.

    ``hook`` is a Python file that the process runs before it becomes a worker.
    """

    def __init__(self, directory: Path, hook: Path | None = None) -> None:
        self.directory = directory
        self._hook = hook
        self.log = directory / "worker.log"
        self.ready_file = directory / "ready"
        self._process: ForkServerProcess | None = None
        self.pid = 0

    def launch(self, environment: Mapping[str, str]) -> None:
        """Start it with these variables and no others, and do not wait."""
        temporary = self.directory / "tmp"
        temporary.mkdir(parents=True)
        variables = {"MASKSCORE_READY_FILE": str(self.ready_file), **environment, "TMPDIR": str(temporary)}
        self.ready_file = Path(variables["MASKSCORE_READY_FILE"])
        self._process = _context.Process(
            target=_work, args=(variables, self.directory, self.log, self._hook), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def wait(self) -> None:
        """Wait until it takes jobs. Raises ``LocalServiceError`` with the end of its log when it ends before."""
        deadline = time.monotonic() + _LOADING_S
        while not self.ready_file.exists():
            if not self.alive():
                tail = self.log_tail()
                raise ServerDiedError(f"the worker ended before it took jobs:\n{tail}", tail)
            if time.monotonic() > deadline:
                raise LocalServiceError(f"the worker took no jobs within {_LOADING_S:g} s:\n{self.log_tail()}")
            time.sleep(_POLL_S)

    def ready(self) -> bool:
        """Whether it takes jobs, as far as it knows."""
        return self.alive() and self.ready_file.exists()

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process is not None and self._process.is_alive()

    def log_tail(self) -> str:
        """The last lines of the log."""
        written = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        return "\n".join(written.splitlines()[-_TAIL_LINES:])

    def exit_code(self, timeout: float) -> int | None:
        """Wait for its end and return its exit code; ``None`` when it did not come within ``timeout`` seconds."""
        assert self._process is not None
        self._process.join(timeout)
        return self._process.exitcode

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), and do not wait."""
        if self._process is not None and self.alive():
            self._process.terminate()

    def stop(self, grace: float = _DRAIN_S) -> None:
        """SIGTERM, then after ``grace`` seconds SIGKILL; returns when the process is gone. Safe to repeat."""
        if self._process is None:
            return
        self.terminate()
        self._process.join(grace)
        if self.alive():
            self._process.kill()
            self._process.join()


@contextmanager
def start_worker(
    environment: Mapping[str, str], directory: Path | None = None, hook: Path | None = None
) -> Iterator[WorkerProcess]:
    """Do as :func:`maskscore.devstack.start_worker` does: these variables are laid above the present ones."""
    with tempfile.TemporaryDirectory(prefix="maskscore-worker-") as temporary:
        worker = WorkerProcess(directory or Path(temporary), hook)
        try:
            worker.launch({**os.environ, **environment})
            worker.wait()
            yield worker
        finally:
            worker.stop()


def _work(variables: dict[str, str], directory: Path, log: Path, hook: Path | None) -> None:
    """Become the worker: what a start of the program would have set is set here."""
    if sys.platform == "linux":
        # It ends with the server that it was forked from, which ends with the tests.
        server = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:
            sys.exit("the tests have ended")
    os.setsid()
    os.chdir(directory)
    with log.open("ab") as written, Path(os.devnull).open("rb") as nothing:
        for source, target in ((nothing, 0), (written, 1), (written, 2)):
            os.dup2(source.fileno(), target)
    os.environ.clear()
    os.environ.update(variables)
    tempfile.tempdir = None
    if threads := variables.get("OMP_NUM_THREADS"):
        import torch

        torch.set_num_threads(int(threads))
    if hook is not None:
        runpy.run_path(str(hook))
    sys.argv = ["maskscore", "worker"]
    main()
