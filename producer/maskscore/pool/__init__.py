"""A pool of workers on one machine: as many as the backlog asks for, one process per device.

    backlog_observer (thread: reads the backlog) ──▶ scaling (pure: how many) ──▶ supervisor (main thread)
                                                                                     │ starts, drains, replaces
                                                   worker_slots (devices, cores) ────┴─▶ worker_process, one per slot

The pool's own process needs no PyTorch. It is for machines without Kubernetes; ``deploy/`` has the same rules for KEDA.
"""

from __future__ import annotations

from maskscore.pool.backlog_observer import BacklogObserver
from maskscore.pool.restart_backoff import RestartBackoff
from maskscore.pool.scaling import BacklogSample, PoolLimits, workers_wanted
from maskscore.pool.supervisor import Supervisor
from maskscore.pool.worker_slots import (
    WorkerSlot,
    available_cores,
    cpu_slots,
    device_slots,
    find_devices,
)

__all__ = [
    "BacklogObserver",
    "BacklogSample",
    "PoolLimits",
    "RestartBackoff",
    "Supervisor",
    "WorkerSlot",
    "available_cores",
    "cpu_slots",
    "device_slots",
    "find_devices",
    "workers_wanted",
]
