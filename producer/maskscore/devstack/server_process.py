"""One server process: it dies with its parent, is awaited until it answers, and is stopped by its pid."""

from __future__ import annotations

import atexit
import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from tenacity import (
    RetryError,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)

from maskscore.errors import MaskscoreError
from maskscore.processes import child_command, deferred_signals

POLL_SECONDS = 0.02
LOCK_SECONDS = 2.0
TAIL_LINES = 15


class LocalServiceError(MaskscoreError):
    """A local server is not installed, did not start, or ended before it answered."""

    code = "local_service_failed"


class ServerDiedError(LocalServiceError):
    """The server ended by itself before it answered; ``log`` is the end of what it wrote."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


class ServerProcess:
    """A server working in ``directory`` (which is made if absent), writing to ``log`` there.

    Parameters
    ----------
    name: what messages call it.
    directory: its working directory, mode 0700; locked while the server lives, so that two never share data.
    log: name of the log file in it; each start appends.
    """

    def __init__(self, name: str, directory: Path, log: str) -> None:
        self._name = name
        self._directory = directory.absolute()
        self.log = self._directory / log
        self._log_start = 0
        self._owner = 0
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the server itself. Raises `LocalServiceError` before `start`."""
        if self._popen is None:
            raise LocalServiceError(f"{self._name} is not running: start it first.")
        return self._popen.pid

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts ``command`` (program path first) in a session of its own, with ``environment`` and no other.

        Raises `LocalServiceError` when another server works in the directory, or it cannot be written.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # An interrupt between fork and the note of the pid would leave a process that nobody knows.
            with deferred_signals():
                self._spawn(command, environment)
        except OSError as error:
            raise LocalServiceError(
                f"{self._name} could not be started in {self._directory}: {error}. Use a directory that can be written."
            ) from error

    def _spawn(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        # The kernel signals a child when the thread that made it ends, so only the main one may ask for it.
        in_main_thread = threading.current_thread() is threading.main_thread()
        with (self._directory / "lock").open("wb") as lock, self.log.open("ab") as log:
            self._lock_directory(lock)
            self._log_start = log.tell()
            self._popen = subprocess.Popen(
                child_command(command, die_with_parent=in_main_thread),
                cwd=self._directory,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # The server inherits the lock and gives it back by ending, however it ends.
                pass_fds=(lock.fileno(),),
            )
        self._owner = os.getpid()
        atexit.register(self.stop)

    def _lock_directory(self, lock: BinaryIO) -> None:
        # The threads of a server that was killed may hold the lock for some milliseconds longer than its pid lives.
        locked = retry_if_exception_type(BlockingIOError)
        retrying = Retrying(
            retry=locked, stop=stop_after_delay(LOCK_SECONDS), wait=wait_fixed(POLL_SECONDS), reraise=True
        )
        try:
            retrying(fcntl.flock, lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalServiceError(
                f"another {self._name} runs in {self._directory}: stop it, or use another directory."
            ) from None

    def wait_until(self, answers: Callable[[], bool], timeout: float) -> None:
        """Returns when ``answers()`` is true.

        Raises `ServerDiedError` when the process ends before, `LocalServiceError` after ``timeout`` seconds.
        """

        def answered() -> bool:
            if self.alive():
                return answers()
            status = None if self._popen is None else self._popen.returncode
            log = self.log_tail()
            raise ServerDiedError(
                f"{self._name} ended with status {status} before it answered. Correct what its log {self.log} says; "
                f"the last lines:\n{log}",
                log,
            )

        silent = retry_if_result(lambda answer: not answer)
        try:
            Retrying(retry=silent, stop=stop_after_delay(timeout), wait=wait_fixed(POLL_SECONDS))(answered)
        except RetryError:
            raise LocalServiceError(
                f"{self._name} did not answer within {timeout:g} s. Try again when the machine is less busy, or "
                f"correct what its log {self.log} says; the last lines:\n{self.log_tail()}"
            ) from None

    def alive(self) -> bool:
        """Whether the process was started and still runs."""
        return self._popen is not None and self._popen.poll() is None

    def log_tail(self) -> str:
        """The last lines that the server has written since its start."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError as error:
            return f"(the log cannot be read: {error})"
        return "\n".join(lines[-TAIL_LINES:]) or "(it wrote nothing)"

    def terminate(self) -> None:
        """Asks the server to end (SIGTERM) and does not wait; `stop` does."""
        if self._popen is not None:
            self._popen.terminate()

    def stop(self, grace: float = 10.0) -> None:
        """SIGTERM, then after ``grace`` seconds SIGKILL; returns when the process is gone. Safe to repeat.

        SIGINT and SIGTERM that arrive meanwhile are delivered afterwards, and end the server's grace.
        """
        with deferred_signals() as pending:
            # A forked copy of this process knows the server as well, but it is not the copy's to stop.
            if self._popen is None or os.getpid() != self._owner:
                return
            self._popen.terminate()
            deadline = time.monotonic() + grace
            while self._popen.poll() is None:
                if pending or time.monotonic() > deadline:
                    self._popen.kill()
                    self._popen.wait()
                    break
                time.sleep(POLL_SECONDS)
            self._popen = None
            atexit.unregister(self.stop)
