"""The base class of the Redis and S3 servers: launch, retry on other ports when one was taken, stop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from maskscore.devstack.server_process import LocalServiceError, ServerDiedError, ServerProcess

ATTEMPTS = 5
TIMEOUT_SECONDS = 60.0

Address = TypeVar("Address")


class Server(ABC, Generic[Address]):
    """A context manager that runs a server and gives its address.

    The start has two steps, `launch` and `wait`, so that several can start side by side.
    """

    name: str
    port_taken: str
    """Text in the log, in lower case, of a server that ended because its port was taken."""

    def __init__(self, process: ServerProcess, port: int | None) -> None:
        self._process = process
        self._port = port

    def __enter__(self) -> Address:
        try:
            self.launch()
            return self.wait()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def launch(self) -> None:
        """Starts the process, on the port asked for or on one that is free now."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether this very server answers an authenticated request."""

    @abstractmethod
    def _address(self) -> Address:
        """Where the server that answers is reached."""

    def wait(self) -> Address:
        """Waits until the launched server answers, launching again on other ports when one was taken.

        Raises `LocalServiceError` with the log's last lines when it ends or stays silent.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._process.wait_until(self._answers, TIMEOUT_SECONDS)
                return self._address()
            except ServerDiedError as death:
                if self.port_taken not in death.log.lower():
                    raise
                if self._port is not None:
                    raise LocalServiceError(
                        f"{self.name} cannot use port {self._port}, which is taken: free it, or give no port."
                    ) from death
                if attempt == ATTEMPTS:
                    raise
            self._process.stop()
            self.launch()
        raise AssertionError("unreachable")

    def terminate(self) -> None:
        """Asks the process to end, without waiting."""
        self._process.terminate()

    def stop(self) -> None:
        """Ends the process. Safe to repeat, and when it is dead already."""
        self._process.stop()
