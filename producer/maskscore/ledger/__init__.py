"""The ledger: what guarantees that an accepted job ends visibly, whatever is killed, restarted or cut off.

Celery delivers job ids; the ledger decides. Each transition is one Lua script in this folder, so that it happens whole
or not at all, by Redis's clock alone:

    submit ──▶ waiting ──claim──▶ running ──finish──▶ succeeded | failed | cancelled
                │ ▲ ▲  ╰─cancel     │ │ ╰─renew: the lease is moved on
                │ │ ╰───release─────╯ ├─retry──▶ delayed ──sweep──▶ waiting
                │ ╰─────sweep─────────╯ the lease has lapsed: waiting again, or failed (poisoned) after the last attempt
                ╰─claimed or swept too late──▶ expired

``waiting`` (one set per lane of the queue, scored by when the job's message was sent), ``running`` (by the end of the
lease) and ``delayed`` (by the time due) are sorted sets; a job is in exactly one of them until it ends. ``dead`` lists
the failed jobs whose input may be fine. Documents and results are opaque bytes here.

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
    Reason,
    Stray,
    Submission,
    Submitted,
    SweepResult,
)
from maskscore.ledger.sweeper import Sweeper
from maskscore.ledger.transitions import Ledger, new_token
from maskscore.ledger.worker_registry import (
    HEARTBEAT_INTERVAL_S,
    LiveWorker,
    WorkerHeartbeat,
    WorkerRegistry,
    WorkerReport,
    no_worker_sentence,
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
    "Reason",
    "Stray",
    "Submission",
    "Submitted",
    "SweepResult",
    "Sweeper",
    "WorkerHeartbeat",
    "WorkerRegistry",
    "WorkerReport",
    "listen_for_ends",
    "new_token",
    "no_worker_sentence",
]
