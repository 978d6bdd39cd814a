"""A pool of workers on one machine: as many as the backlog asks for, one process per device and model.

    backlog_observer (thread: reads the backlog) ──▶ scaling (pure: how many) ──▶ supervisor (main thread)
                                                                                     │ starts, drains, replaces
                                                   worker_slots (devices, cores) ────┴─▶ worker_process, one per slot

The pool's own process needs no PyTorch. It is for machines without Kubernetes; ``deploy/`` has the same rules for KEDA.
"""

from __future__ import annotations

from maskscore.pool.local_pool import run_pool
from maskscore.pool.scaling import pool_limits
from maskscore.pool.worker_slots import choose_slots, slots_of_models

__all__ = ["choose_slots", "pool_limits", "run_pool", "slots_of_models"]
