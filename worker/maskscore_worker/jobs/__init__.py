"""Jobs on this worker: taking them from the queue, leases, attempts and their outcomes, giving them back."""

from __future__ import annotations

from maskscore_worker.jobs.attempt import (
    Attempts,
)
from maskscore_worker.jobs.celery_task import (
    register,
)
from maskscore_worker.jobs.exclusive_gate import (
    Company,
)
from maskscore_worker.jobs.leases import (
    Leases,
)
from maskscore_worker.jobs.queue_guard import (
    guard_queue,
)
from maskscore_worker.jobs.remote_control import (
    QueueConsumer,
    register_commands,
)
from maskscore_worker.jobs.shutdown import (
    Drain,
)
from maskscore_worker.jobs.worker_faults import (
    WorkerFaults,
)

__all__ = [
    "Attempts",
    "Company",
    "Drain",
    "Leases",
    "QueueConsumer",
    "WorkerFaults",
    "guard_queue",
    "register",
    "register_commands",
]
