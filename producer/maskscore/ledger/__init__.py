"""The ledger: what guarantees that an accepted job ends visibly, whatever is killed, restarted or cut off.

Celery delivers tickets; the ledger decides. Each transition is one Lua script in this folder, so that it happens whole
or not at all, by Redis's clock alone:

    submit ──▶ waiting ──claim──▶ running ──finish──▶ succeeded | failed | cancelled
                │ ▲ ▲  ╰─cancel     │ │ ╰─renew: the lease is moved on
                │ │ ╰───release─────╯ ├─retry──▶ delayed ──sweep──▶ waiting
                │ ╰─────sweep─────────╯ the lease has lapsed: waiting again, or failed (poisoned) after the last attempt
                ╰─claimed or swept too late──▶ expired

A ticket is a message in Celery's queue, one for each job that begins to wait. It names none: whoever takes it claims
the next job. So a ticket that is lost is made good by counting (the sweeper does), and one too many finds nothing.

A shard is such a job, too. ``commit`` notes its cursor after each part, from which the next attempt goes on; attempts
count from there. One that ends workers before its next part runs image by image, alone (``trial``), until the image
that is to blame is known.

Waiting jobs lie in a sorted set per priority, model and tenant (``queue:…``), by a number that only grows; ``turns:…``
holds the tenants that have any, by their next turn, ``resting:…`` those whose bucket is empty, and ``suspects:…`` jobs
that have ended a worker. ``running`` (by the end of the lease) and ``delayed`` (by the time due) are sorted sets, too;
a job is in exactly one of them until it ends. ``depth`` counts the waiting jobs by model, ``going`` those in the last
two by named model. ``dead`` lists the failed jobs whose input may be fine. Documents and results are opaque bytes here.

What is due when goes by a clock that never goes back (``transition.lua``), also where Redis's own does. What a script
finds in these keys that the ledger did not write is put aside and reported (:class:`Stray`); it stops nothing.
"""

from maskscore.ledger.batches import BatchLedger
from maskscore.ledger.endings import End, listen_for_ends
from maskscore.ledger.records import (
    Backlog,
    BatchCounts,
    BatchEvent,
    BatchSummary,
    Claim,
    DeadLetter,
    JobRecord,
    JobStatus,
    ModelBacklog,
    Reason,
    ShardProgress,
    Stray,
    Submission,
    Submitted,
    SweepResult,
    TenantLimits,
    TenantState,
    TenantStates,
    Unclaimed,
)
from maskscore.ledger.sweeper import Sweeper
from maskscore.ledger.transitions import Ledger, new_token, open_ledger
from maskscore.ledger.worker_registry import (
    HEARTBEAT_INTERVAL_S,
    LiveWorker,
    WorkerHeartbeat,
    WorkerRegistry,
    WorkerReport,
    no_worker_sentence,
    unserved_sentence,
)

__all__ = [
    "HEARTBEAT_INTERVAL_S",
    "Backlog",
    "BatchCounts",
    "BatchEvent",
    "BatchLedger",
    "BatchSummary",
    "Claim",
    "DeadLetter",
    "End",
    "JobRecord",
    "JobStatus",
    "Ledger",
    "LiveWorker",
    "ModelBacklog",
    "Reason",
    "ShardProgress",
    "Stray",
    "Submission",
    "Submitted",
    "SweepResult",
    "Sweeper",
    "TenantLimits",
    "TenantState",
    "TenantStates",
    "Unclaimed",
    "WorkerHeartbeat",
    "WorkerRegistry",
    "WorkerReport",
    "listen_for_ends",
    "new_token",
    "no_worker_sentence",
    "open_ledger",
    "unserved_sentence",
]
