"""From a message of the queue to a job's outcome: gate, claim, lease, attempt, metrics, trace."""

from __future__ import annotations

import logging
from contextlib import ExitStack

from maskscore.ledger import Claim, Ledger, new_token
from maskscore.observability import Tracing, job_id_logged
from maskscore.settings import WorkerSettings
from maskscore_worker.jobs.attempt import Attempts, Recorded, until_redis_answers
from maskscore_worker.jobs.exclusive_gate import ExclusiveGate
from maskscore_worker.jobs.leases import Leases
from maskscore_worker.jobs.shutdown import Shutdown
from maskscore_worker.jobs.worker_faults import WorkerFaults
from maskscore_worker.pipeline import Pipeline
from maskscore_worker.telemetry import StageTimer, WorkerMetrics

__all__ = ["JobRunner"]

log = logging.getLogger(__name__)


class JobRunner:
    """Runs the jobs whose messages come in; any thread may call :meth:`run`."""

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
        self._attempts = Attempts(settings, ledger, shutdown, faults, pipeline)
        self.messages = 0
        """Messages that came in, whatever became of them."""

    def run(self, job_id: str) -> None:
        """Claim the job, unless there is nothing to do for it here, and bring it to an outcome."""
        self.messages += 1
        token = new_token()
        self._faults.wait()
        with job_id_logged(job_id):
            with self._gate.shared():
                answer = self._claim_and_run(job_id, token, alone=False)
            if answer != "suspect":
                return
            log.info("job %s is run alone, since attempts of it ended with their worker or its device", job_id)
            with self._gate.exclusive():
                self._claim_and_run(job_id, token, alone=True)

    def _claim_and_run(self, job_id: str, token: str, *, alone: bool) -> str:
        """Return the ledger's answer where it gave no claim, else ``done``."""
        timer = StageTimer()
        with ExitStack() as lease:
            with self._shutdown.claiming():
                if self._shutdown.draining or self._pipeline.device_check.reason is not None:
                    self._shutdown.pass_on(job_id)
                    return "draining"
                with timer.stage("claim"):
                    claim = until_redis_answers(
                        lambda: self._ledger.claim(
                            job_id,
                            token=token,
                            worker=self._pipeline.worker,
                            lease_s=self._settings.lease_s,
                            alone=alone,
                        ),
                        f"claim job {job_id}",
                        self._shutdown,
                    )
                if isinstance(claim, str):
                    log.debug("job %s: nothing to do: %s", job_id, claim)
                    return claim
                self._metrics.claimed(claim)
                holder = lease.enter_context(self._leases.hold(claim))
            recorded = self._attempts.run(claim, holder, timer)
        self._metrics.ended(recorded.outcome, recorded.code, timer)
        if recorded.skipped is not None:
            self._metrics.scored(recorded.skipped, recorded.scored)
        if self._tracing:
            self._trace(self._tracing, claim, recorded, timer)
        return "done"

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
