"""Submitting jobs: their documents in the ledger, their masks spilled where they are too large."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from maskscore.broker import DEFAULT_MODEL, redis_errors
from maskscore.client.content_id import digest_of
from maskscore.errors import JobConflict, PayloadTooLarge, QueueFull, TooManyBatches
from maskscore.ledger import Ledger, Submission, Submitted
from maskscore.observability import open_tracing
from maskscore.schema import Job, MasksRef, Shard, pack
from maskscore.settings import ClientSettings
from maskscore.storage import Objects

__all__ = ["Submitter"]


class Submitter:
    """Submits a page of jobs at a time."""

    def __init__(self, settings: ClientSettings, ledger: Ledger, objects: Objects) -> None:
        self._settings = settings
        self._ledger = ledger
        self._objects = objects

    def __call__(
        self,
        jobs: Sequence[Job | Shard],
        batch_id: str | None,
        retry_failed: bool,
        retry_also: Collection[str] = (),
        *,
        apart: bool = False,
    ) -> None:
        """Submit jobs and shards, of a batch or not, in one round trip.

        Raises as :meth:`maskscore.Client.submit` does.

        Those that were submitted before and ended without a result run again with ``retry_failed``; those of
        ``retry_also`` run again however they ended. With ``apart``, ids of other tenants' jobs and batches are refused.
        """
        tracing = open_tracing("maskscore-producer")
        attributes: dict[str, Any] = {"messaging.batch.message_count": len(jobs)}
        attributes |= {"maskscore.batch_id": batch_id} if batch_id else {"maskscore.job_id": jobs[0].job_id}
        with tracing.submit(attributes) if tracing else nullcontext() as traceparent:
            submissions = [
                replace(
                    self._submission(job, batch_id, traceparent),
                    replaces="ended" if job.job_id in retry_also else "failed" if retry_failed else None,
                    apart=apart,
                )
                for job in jobs
            ]
            self._send(jobs, submissions, batch_id, retry_failed)

    def _send(
        self, jobs: Sequence[Job | Shard], submissions: list[Submission], batch_id: str | None, retry_failed: bool
    ) -> None:
        with redis_errors(self._settings):
            outcomes = self._ledger.submit(submissions, queue_limit=self._settings.queue_limit)
        pairs = list(zip(jobs, outcomes, strict=True))
        conflicts = [job.job_id for job, outcome in pairs if outcome is Submitted.CONFLICT]
        if conflicts:
            raise JobConflict(
                f"Another document was submitted before as job {', '.join(conflicts[:5])}. "
                "Give the new job an id of its own, or leave `job_id` out."
            )
        if batch_id and any(outcome is Submitted.FOREIGN_BATCH for outcome in outcomes):
            raise JobConflict(f"The batch id {batch_id} is taken. Choose another one.")
        crowded = [job.job_id for job, outcome in pairs if outcome is Submitted.IN_TOO_MANY_BATCHES]
        if crowded:
            raise TooManyBatches(
                f"Job {', '.join(crowded[:5])} is in as many batches as a job may be, and did not join {batch_id}. "
                "Give the job a new id, or read its result under its id."
            )
        for job, outcome in pairs:
            if outcome in (Submitted.FULL, Submitted.TENANT_FULL):
                self._raise_full(job, batch_id, of_tenant=outcome is Submitted.TENANT_FULL)
        if retry_failed:
            known = [job.job_id for job, outcome in pairs if outcome is Submitted.KNOWN]
            with redis_errors(self._settings):
                self._ledger.requeue_many(known)

    def _raise_full(self, job: Job | Shard, batch_id: str | None, *, of_tenant: bool) -> None:
        with redis_errors(self._settings):
            backlog = self._ledger.backlog()
            tenant = (job.tenant or batch_id or "") if of_tenant else None
            most = None if tenant is None else self._ledger.tenant_limits(tenant).most_queued
        depth = backlog.waiting + backlog.delayed
        again = f"these jobs again under the batch {batch_id}" if batch_id else "again"
        if tenant is not None:
            name = f"The tenant {tenant!r} has" if tenant else "Jobs without a tenant have together"
            raise QueueFull(
                f"{name} as many jobs queued as it may{'' if most is None else f', which is {most:,}'}. Submit {again} "
                f"when there are fewer; nothing is doubled. `maskscore tenants set {tenant or 'NAME'} --max-queued N` "
                "allows more.",
                depth=depth,
                tenant=tenant,
            )
        raise QueueFull(
            f"{depth:,} jobs are queued, and MASKSCORE_QUEUE_LIMIT is {self._settings.queue_limit:,}. Submit {again} "
            "when there are fewer; nothing is doubled.",
            depth=depth,
        )

    def _submission(self, job: Job | Shard, batch_id: str | None, traceparent: str | None) -> Submission:
        document = pack(job, preset=True)
        if len(document) > self._settings.max_document_bytes:
            document = pack(self._spill(job, len(document)), preset=True)
        return Submission(
            job.job_id,
            document,
            digest_of(job),
            batch_id,
            job.priority,
            job.expires_in,
            traceparent=traceparent,
            tenant=job.tenant,
            masks=len(job.masks) if isinstance(job, Job) and isinstance(job.masks, list) else None,
            model=job.options.model or DEFAULT_MODEL,
        )

    def _spill(self, job: Job | Shard, size: int) -> Job:
        if isinstance(job, Shard):
            raise PayloadTooLarge(
                f"The document of shard {job.shard_id} takes {size:,} bytes, more than MASKSCORE_MAX_DOCUMENT_BYTES = "
                f"{self._settings.max_document_bytes:,}. Give its prompts and its head by name."
            )
        if self._settings.spill_uri is None or isinstance(job.masks, MasksRef):
            raise PayloadTooLarge(
                f"The document of job {job.job_id} takes {size:,} bytes, more than MASKSCORE_MAX_DOCUMENT_BYTES = "
                f"{self._settings.max_document_bytes:,}. Put the masks into an object and give its URI as `masks`, or "
                "set MASKSCORE_SPILL_URI (s3://bucket/prefix/) so that the client does."
            )
        # By its digest: another job under the same id, which is refused later, must not overwrite this one's masks.
        uri = f"{self._settings.spill_uri}{job.job_id}-{digest_of(job)[:16]}.masks.json"
        inline = job.model_dump_json(include={"masks"})
        etag = self._objects.write(uri, inline.encode(), content_type="application/json")
        return job.model_copy(update={"masks": MasksRef(uri=uri, etag=etag)})
