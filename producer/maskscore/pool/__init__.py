"""A pool of workers on one machine: as many as the backlog asks for, one process per device.

    demand (a thread: the ledger's backlog) ──▶ scale (pure: how many) ──▶ supervisor (the main thread's loop)
                                                                              │ starts, drains, replaces
                                                     places (devices, cores) ─┴─▶ one `maskscore worker` process each

The pool's own process needs no PyTorch. It is for machines without Kubernetes; ``deploy/`` has the same rules for KEDA.
"""

from __future__ import annotations

from maskscore.pool.backlog_observer import Demand
from maskscore.pool.restart_backoff import Restarts
from maskscore.pool.scaling import Limits, Observation, how_many
from maskscore.pool.supervisor import Supervisor
from maskscore.pool.worker_slots import (
    Place,
    cpu_places,
    device_places,
    find_devices,
    own_cores,
)

__all__ = [
    "Demand",
    "Limits",
    "Observation",
    "Place",
    "Restarts",
    "Supervisor",
    "cpu_places",
    "device_places",
    "find_devices",
    "how_many",
    "own_cores",
]
