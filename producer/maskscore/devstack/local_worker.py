"""A worker as a child process, for the demo, the tests and ``maskscore up``."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from maskscore.devstack.server_process import ServerProcess

__all__ = ["start_worker"]

_LOADING_SECONDS = 600.0
_DRAIN_SECONDS = 20.0


@contextmanager
def start_worker(
    environment: Mapping[str, str], directory: Path | None = None, *, python: Path = Path(sys.executable)
) -> Iterator[ServerProcess]:
    """Start ``maskscore worker`` with these variables above the present ones, and wait until it takes jobs.

    It runs in ``directory`` (a temporary one where none is given), by ``python``. At the end of the block it is sent
    SIGTERM, has 20 s to finish what runs, and is killed after that. Raises
    :class:`~maskscore.devstack.LocalServiceError` with the end of its log when it does not come up.
    """
    # PyTorch leaves caches in the temporary folder; the worker gets one that goes with it.
    with tempfile.TemporaryDirectory(prefix="maskscore-worker-") as temporary:
        folder = directory or Path(temporary)
        ready = Path(temporary) / "ready"
        process = ServerProcess("worker", folder, "worker.log")
        try:
            process.start(
                [str(python), "-m", "maskscore", "worker"],
                {**os.environ, **environment, "MASKSCORE_READY_FILE": str(ready), "TMPDIR": temporary},
            )
            process.wait_until(ready.exists, _LOADING_SECONDS)
            yield process
        finally:
            process.stop(grace=_DRAIN_SECONDS)
