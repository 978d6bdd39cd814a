"""One attempt of a shard: from its cursor on, part by part; each is stored and then committed in the ledger."""

from __future__ import annotations

from collections import Counter
from functools import partial

from maskscore.ledger import Claim, Ledger, ShardProgress
from maskscore.parts import PartTables, part_names, remove_parts, write_part
from maskscore.schema import JobResult, JobState, Notice, Shard, ShardCursor, ShardOutcome
from maskscore.settings import WorkerSettings
from maskscore_worker.jobs.exclusive_gate import ExclusiveGate
from maskscore_worker.jobs.leases import LeaseHolder
from maskscore_worker.jobs.redis_waiting import until_redis_answers
from maskscore_worker.jobs.shutdown import Shutdown
from maskscore_worker.pipeline import Pipeline
from maskscore_worker.shards import score_shard
from maskscore_worker.telemetry import WorkerMetrics

__all__ = ["ShardAttempts"]


class ShardAttempts:
    """Runs claimed shards."""

    def __init__(
        self,
        settings: WorkerSettings,
        ledger: Ledger,
        gate: ExclusiveGate,
        shutdown: Shutdown,
        pipeline: Pipeline,
        metrics: WorkerMetrics,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._gate = gate
        self._shutdown = shutdown
        self._pipeline = pipeline
        self._metrics = metrics

    def run(self, shard: Shard, claim: Claim, holder: LeaseHolder, *, alone: bool) -> JobResult:
        """Score a shard from its cursor to its end and return its result.

        The job's timeout counts from each committed part on. A shard that runs ``alone``, since it may end its worker,
        runs image by image, and is given back after a part: the next one may be scored beside other jobs again. So is
        one whose worker is to end, one that a job of a higher priority waits behind, and one beside which a suspect
        waits until it is alone. Raises what :func:`maskscore_worker.shards.score_shard` does, what storing a part does,
        and :class:`JobStopped`.
        """
        # Not only after a thousand images.
        self._pipeline.objects.check_output(shard.output_uri)
        cursor = ShardCursor.model_validate_json(claim.cursor) if claim.cursor else ShardCursor()

        def commit_part(tables: PartTables, number: int, after: ShardCursor) -> None:
            self._renew(claim, holder)
            output, objects = shard.output_uri, self._pipeline.objects
            # Parts of an earlier document of this id, which may have had more of them.
            remove_later = partial(remove_parts, shard.name, number + 1, output, objects)
            write_part(tables, part_names(shard.name, number), output, objects, replacing=remove_later)
            others_wait = self._commit(claim, holder, after)
            codes = Counter(code for code in tables.masks["skipped"].to_pylist() if code is not None)
            self._metrics.scored(codes, tables.counts.masks - tables.counts.skipped)
            if not after.done and (others_wait or not self._gate.is_open or self._shutdown.draining):
                self._shutdown.release(claim)
                holder.stop_reason = "released"
            holder.check()

        def begin_alone(position: int) -> None:
            if not until_redis_answers(
                lambda: self._ledger.try_alone(claim, position),
                f"note an image of shard {claim.job_id}",
                self._shutdown,
            ):
                holder.stop_reason = "lost"
            holder.check()

        last = score_shard(
            self._pipeline,
            shard,
            cursor,
            commit_part,
            claim=claim,
            check=holder.check,
            begin_alone=begin_alone if alone else None,
        )
        result = JobResult(
            job_id=shard.shard_id,
            batch_id=shard.batch_id,
            state=JobState.SUCCEEDED,
            shard=ShardOutcome(name=shard.name, output_uri=shard.output_uri, parts=last.part, counts=last.counts),
            attempts=claim.attempt,
            worker=self._pipeline.worker,
            submitted_at=claim.submitted_at,
        )
        if result.no_mask_scored:
            notice = Notice(code="no_mask_scored", message=result.why_no_mask_scored)
            result = result.model_copy(update={"warnings": [notice]})
        return result

    def _renew(self, claim: Claim, holder: LeaseHolder) -> None:
        """Stop where the lease is another's: a process that was frozen does not know yet, and must store nothing."""
        (answer,) = until_redis_answers(
            lambda: self._ledger.renew([claim], lease_s=self._settings.lease_s),
            f"renew the lease of shard {claim.job_id}",
            self._shutdown,
        )
        if answer != "renewed" and holder.stop_reason != "released":
            holder.stop_reason = answer
        holder.check()

    def _commit(self, claim: Claim, holder: LeaseHolder, after: ShardCursor) -> bool:
        """Commit a part; return whether a job of a higher priority waits for a place."""
        progress = ShardProgress(after.counts.images, after.counts.masks, after.part)
        answer = until_redis_answers(
            lambda: self._ledger.commit(
                claim, lease_s=self._settings.lease_s, cursor=after.model_dump_json().encode(), progress=progress
            ),
            f"commit part {after.part - 1} of shard {claim.job_id}",
            self._shutdown,
        )
        if answer not in ("committed", "yield") and holder.stop_reason != "released":
            holder.stop_reason = answer
        holder.extend()
        return answer == "yield"
