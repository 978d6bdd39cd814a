"""A pool's threads and its supervisor, from start to end."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from maskscore.broker import connect, refuse_cluster
from maskscore.ledger import Sweeper, open_ledger
from maskscore.pool.backlog_observer import BacklogObserver
from maskscore.pool.scaling import PoolLimits
from maskscore.pool.supervisor import Supervisor
from maskscore.pool.worker_slots import WorkerSlot
from maskscore.settings import WorkerSettings

__all__ = ["run_pool"]

_LOAD_S = 600.0
# A worker that is told to end at once gives its jobs back, for which Redis may take some seconds to answer.
_BEYOND_GRACE_S = 20.0


def run_pool(settings: WorkerSettings, slots: Sequence[WorkerSlot], limits: PoolLimits, *, every_s: float) -> int:
    """Run workers at the slots until SIGTERM or SIGINT and return the exit code; read the backlog every ``every_s``.

    Raises :class:`~maskscore.errors.SettingsError` for a Redis that cannot be used.
    """
    with ExitStack() as stack:
        client = stack.enter_context(connect(settings))
        refuse_cluster(client, settings)
        ledger = open_ledger(client, settings)
        observer = BacklogObserver(ledger, every_s=every_s, keep_s=limits.cool_down_s)
        # Without a worker, no other process queues the jobs that are due again or have lost their worker.
        name = f"{socket.gethostname()}-{os.getpid()}-pool"
        sweeper = Sweeper(ledger, settings, name=name)
        for thread in (observer, sweeper):
            thread.start()
            stack.callback(thread.close)
        supervisor = Supervisor(
            slots,
            [sys.executable, "-m", "maskscore", "worker"],
            os.environ,
            observer.samples,
            limits,
            load_s=_LOAD_S,
            drain_s=settings.grace_s + _BEYOND_GRACE_S,
        )
        return supervisor.run()
