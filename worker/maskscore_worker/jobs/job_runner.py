"""From a ticket of the queue to a job's outcome: gate, claim, lease, attempt, metrics, trace."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from maskscore.broker import DEFAULT_MODEL
from maskscore.ledger import Claim, Ledger, Unclaimed, new_token
from maskscore.observability import Tracing, job_id_logged
from maskscore.settings import WorkerSettings
from maskscore_worker.jobs.attempt import Attempts, Recorded
from maskscore_worker.jobs.exclusive_gate import ExclusiveGate
from maskscore_worker.jobs.leases import Leases
from maskscore_worker.jobs.redis_waiting import until_redis_answers
from maskscore_worker.jobs.shutdown import Shutdown
from maskscore_worker.jobs.worker_faults import WorkerFaults
from maskscore_worker.pipeline import Pipeline
from maskscore_worker.telemetry import StageTimer, WorkerMetrics

__all__ = ["JobRunner"]

log = logging.getLogger(__name__)


class JobRunner:
    """Runs a job for each ticket that comes in; any thread may call :meth:`run`."""

    def __init__(
        self,
        settings: WorkerSettings,
        ledger: Ledger,
        leases: Leases,
        gate: ExclusiveGate,
        shutdown: Shutdown,
        faults: WorkerFaults,
        pipeline: Pipeline,
        metrics: WorkerMetrics,
        tracing: Tracing | None,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._leases = leases
        self._gate = gate
        self._shutdown = shutdown
        self._faults = faults
        self._pipeline = pipeline
        self._metrics = metrics
        self._tracing = tracing
        self._attempts = Attempts(settings, ledger, gate, shutdown, faults, pipeline, metrics)
        self.tickets = 0
        """Tickets that came in, whatever became of them."""

    def run(self, began: Callable[[str], None] = lambda _: None) -> str:
        """Claim the next job, if there is one, and bring it to an outcome; return a line on what was done.

        ``began`` is called with the job's id.
        """
        self.tickets += 1
        self._faults.wait()
        while True:
            token = new_token()
            with self._gate.shared():
                done = self._claim_and_run(began, token, alone=False)
            if done is not Unclaimed.SUSPECT:
                return done
            # Asking again keeps the suspect for this worker, as long as that lives.
            with self._gate.exclusive(partial(self._claim, token, alone=False), self._settings.lease_s / 30):
                done = self._claim_and_run(began, new_token(), alone=True)
            # Another worker may have been alone before.
            if done is not Unclaimed.EMPTY:
                return done

    def _claim(self, token: str, *, alone: bool) -> Claim | Unclaimed:
        return until_redis_answers(
            lambda: self._ledger.claim(
                token=token,
                worker=self._pipeline.worker,
                lease_s=self._settings.lease_s,
                model=self._settings.model_name or DEFAULT_MODEL,
                alone=alone,
            ),
            "claim a job",
            self._shutdown,
        )

    def _claim_and_run(self, began: Callable[[str], None], token: str, *, alone: bool) -> str:
        timer = StageTimer()
        with ExitStack() as stack:
            with self._shutdown.claiming():
                if self._shutdown.draining or self._pipeline.device_check.reason is not None:
                    # The sweeper counts, and sends another ticket.
                    return "no job: this worker ends"
                with timer.stage("claim"):
                    claim = self._claim(token, alone=alone)
                if isinstance(claim, Unclaimed):
                    return claim
                self._metrics.claimed(claim)
                stack.enter_context(job_id_logged(claim.job_id))
                holder = stack.enter_context(self._leases.hold(claim))
            began(claim.job_id)
            if alone:
                log.info(
                    "job %s is run alone, since attempts of it ended with their worker or its device", claim.job_id
                )
            recorded = self._attempts.run(claim, holder, timer, alone=alone)
        self._metrics.ended(recorded.outcome, recorded.code, timer)
        if recorded.skipped is not None:
            self._metrics.scored(recorded.skipped, recorded.scored)
        if self._tracing:
            self._trace(self._tracing, claim, recorded, timer)
        return f"job {claim.job_id} {recorded.outcome}{f': {recorded.code}' if recorded.code else ''}"

    def _trace(self, tracing: Tracing, claim: Claim, recorded: Recorded, timer: StageTimer) -> None:
        tracing.attempt(
            claim.traceparent,
            begin_ns=timer.begin_ns,
            end_ns=timer.now_ns(),
            stages={
                name: (stage.begin_ns, stage.end_ns, stage.seconds, stage.failed)
                for name, stage in timer.stages.items()
            },
            attributes={
                "maskscore.job_id": claim.job_id,
                "maskscore.attempt": claim.attempt,
                "maskscore.retries": claim.retries,
                "maskscore.worker": self._pipeline.worker,
                "maskscore.outcome": recorded.outcome,
                **({"maskscore.code": recorded.code} if recorded.code else {}),
            },
            error=recorded.message if recorded.code else None,
        )
