"""Jobs on this worker: taking them from the queue, leases, attempts and their outcomes, and the worker's shutdown."""

from __future__ import annotations

from maskscore_worker.jobs.exclusive_gate import ExclusiveGate
from maskscore_worker.jobs.job_runner import JobRunner
from maskscore_worker.jobs.leases import Leases
from maskscore_worker.jobs.message_filter import filter_messages
from maskscore_worker.jobs.remote_control import ConsumerState, register_commands
from maskscore_worker.jobs.shutdown import Shutdown
from maskscore_worker.jobs.worker_faults import WorkerFaults

__all__ = [
    "ConsumerState",
    "ExclusiveGate",
    "JobRunner",
    "Leases",
    "Shutdown",
    "WorkerFaults",
    "filter_messages",
    "register_commands",
]
