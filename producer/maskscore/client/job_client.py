"""Jobs by their ids: their states and results, cancelling them and running them again.

It is one class, so it is longer than other modules.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Self

from maskscore.broker import connect, redis_errors
from maskscore.client.polling import PAGE, Deadline, pages
from maskscore.errors import InvalidDocumentError, JobFailed, JobNotFound, WaitTimeout
from maskscore.ledger import (
    Backlog,
    DeadLetter,
    JobRecord,
    JobStatus,
    LiveWorker,
    TenantLimits,
    TenantState,
    TenantStates,
    WorkerRegistry,
    no_worker_sentence,
    open_ledger,
    unserved_sentence,
)
from maskscore.schema import (
    DEFAULT_MODEL_NAME,
    Job,
    JobResult,
    JobState,
    Shard,
    is_shard,
    parse_job,
    parse_shard,
    unpack,
)
from maskscore.settings import ClientSettings, load_settings, warn_of_unknown_variables
from maskscore.storage import Objects, load_result

__all__ = ["JobClient", "JobHandle", "no_such_job", "not_ended", "succeeded"]

# Ends are published at once; this is for an end while the connection was broken.
_CHECK_AGAIN_S = 1.0


class JobHandle:
    """One submitted job. Cheap: it holds the id and asks through its client."""

    def __init__(self, client: JobClient, job_id: str) -> None:
        self._client = client
        self.job_id = job_id

    def status(self) -> JobStatus:
        """Return where the job is; see :meth:`Client.status`."""
        return self._client.status(self.job_id)

    def wait(self, timeout: float | None = None) -> JobResult:
        """Wait for the result; see :meth:`Client.wait`."""
        return self._client.wait(self.job_id, timeout=timeout)

    def cancel(self) -> JobState:
        """Cancel the job; see :meth:`Client.cancel`."""
        return self._client.cancel(self.job_id)

    def __repr__(self) -> str:
        return f"JobHandle({self.job_id!r})"


class JobClient:
    """What :class:`maskscore.Client` does with jobs that were submitted before.

    Parameters and errors: see there.
    """

    def __init__(self, settings: ClientSettings | None = None, **overrides: Any) -> None:
        if settings is None:
            warn_of_unknown_variables()
            settings = load_settings(ClientSettings, **overrides)
        elif overrides:
            raise TypeError("give either a settings object or single settings, not both")
        self.settings = settings
        self._redis = connect(settings)
        self._ledger = open_ledger(self._redis, settings)
        self._registry = WorkerRegistry(self._redis, namespace=settings.namespace)
        # The client reads and writes only where its own settings, jobs and results point.
        self.objects = Objects(buckets=None, result_buckets=None, file_roots=[Path("/")], result_roots=[Path("/")])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        with ExitStack() as closing:
            for part in (self._redis, self.objects):
                closing.callback(part.close)

    def handle(self, job_id: str) -> JobHandle:
        """Return a handle for a job submitted before, perhaps by another process. Asks nothing yet."""
        return JobHandle(self, job_id)

    def status(self, job_id: str) -> JobStatus:
        """Return where the job is. Raises :class:`~maskscore.errors.JobNotFound`."""
        return self.statuses([job_id])[0]

    def statuses(self, job_ids: Iterable[str]) -> list[JobStatus]:
        """Return where the jobs are, in one round trip. Raises :class:`~maskscore.errors.JobNotFound`."""
        ids = list(job_ids)
        found = self._find_statuses(ids)
        unknown = [job_id for job_id, status in zip(ids, found, strict=True) if status is None]
        if unknown:
            raise no_such_job(*unknown)
        return [status for status in found if status is not None]

    def records(self, job_ids: Iterable[str]) -> list[JobRecord | None]:
        """Return what the ledger holds of the jobs, in one round trip; ``None`` for unknown ones."""
        with redis_errors(self.settings):
            return self._ledger.records(job_ids)

    def get(self, job_id: str) -> JobResult:
        """Return an ended job's result; look at its ``state``: failed, cancelled and expired jobs have one too.

        Raises :class:`~maskscore.errors.ResultUnavailable` while the job has not ended or when its stored object is
        gone, and :class:`~maskscore.errors.JobNotFound`.
        """
        with redis_errors(self.settings):
            record = self._ledger.record(job_id)
        return load_result(record, self.objects)

    def job(self, job_id: str) -> Job:
        """Return the job as it was submitted (spilled masks by reference).

        Raises ``JobNotFound``, and ``InvalidDocumentError`` for a shard.
        """
        return self._jobs([job_id])[0]

    def shard(self, job_id: str) -> Shard:
        """Return the shard as it was submitted. Raises ``JobNotFound``, and ``JobError`` for a job."""
        with redis_errors(self.settings):
            document = self._ledger.document(job_id)
        return parse_shard(unpack(document))

    def _is_shard(self, job_id: str) -> bool:
        """Say whether the document of a job is that of a shard; one that is gone is none."""
        try:
            with redis_errors(self.settings):
                document = self._ledger.document(job_id)
        except JobNotFound:
            return False
        return is_shard(unpack(document))

    def wait(self, job_id: str, timeout: float | None = None) -> JobResult:
        """Wait until the job has succeeded and return its result.

        Raises :class:`~maskscore.errors.JobFailed` (with the code) when it failed, was cancelled or expired, and
        :class:`~maskscore.errors.WaitTimeout` after ``timeout`` seconds; the job goes on then. The message says
        so where no worker is alive.
        """
        self._wait_for_end(job_id, timeout)
        return succeeded(self.get(job_id))

    def _wait_for_end(self, job_id: str, timeout: float | None) -> None:
        deadline = Deadline(timeout)
        if self.status(job_id).state.ended:
            return
        with redis_errors(self.settings), self._ledger.watched(job_id) as wait:
            while not (status := self.status(job_id)).state.ended:
                if deadline.passed:
                    raise self._wait_timeout(not_ended(status, deadline), [job_id])
                wait(deadline.left_s(_CHECK_AGAIN_S))

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job and return its state now.

        A queued job is ``cancelled`` at once and never runs; a running one stops at its next step; an ended one
        stays as it is. Raises :class:`~maskscore.errors.JobNotFound`.
        """
        with redis_errors(self.settings):
            return self._ledger.cancel(job_id)

    def cancel_many(self, job_ids: Iterable[str]) -> list[JobState | None]:
        """Cancel jobs in one round trip; return the state each is in now, ``None`` for unknown ones."""
        with redis_errors(self.settings):
            return self._ledger.cancel_many(job_ids)

    def requeue(self, job_id: str) -> JobState:
        """Run a job again that failed, was cancelled or expired, with all its attempts; a dead letter leaves the list.

        Returns the state it is in now: ``queued``; a job that has not ended, or has succeeded, stays as it is. Raises
        :class:`~maskscore.errors.JobNotFound`.
        """
        with redis_errors(self.settings):
            before = self._ledger.requeue(job_id)
        return before if not before.ended or before is JobState.SUCCEEDED else JobState.QUEUED

    def requeue_many(self, job_ids: Iterable[str], *, codes: Iterable[str] = ()) -> list[str]:
        """Run those of the jobs again that ended without a result, as :meth:`requeue` does; return their ids.

        With ``codes`` (:class:`~maskscore.errors.FailureCode`), only those that ended with one of them. Jobs that have
        not ended, have succeeded or are unknown stay as they are.
        """
        codes = [str(code) for code in codes]
        again: list[str] = []
        for page in pages(job_ids):
            with redis_errors(self.settings):
                again += self._ledger.requeue_many(page, codes=codes)
        return again

    def dead_letters(self, *, limit: int = 1000) -> list[DeadLetter]:
        """Return the jobs that were given up although their input may be fine, the latest first.

        They are those that ended their worker in every attempt (``poisoned``) and those whose retries are used up. They
        are kept until :meth:`requeue` or :meth:`drop_dead_letter`.
        """
        with redis_errors(self.settings):
            return self._ledger.dead_letters(limit=limit)

    def dead_letter(self, job_id: str) -> DeadLetter:
        """Return one dead letter. Raises :class:`~maskscore.errors.JobNotFound` where it is none."""
        with redis_errors(self.settings):
            return self._ledger.dead_letter(job_id)

    def drop_dead_letter(self, job_id: str) -> bool:
        """Take a job off the list of dead letters; return whether it was there. Its failure is kept as any other."""
        with redis_errors(self.settings):
            return self._ledger.drop(job_id)

    def backlog(self) -> Backlog:
        """Count the jobs that have not ended, and the dead letters."""
        with redis_errors(self.settings):
            return self._ledger.backlog()

    def job_tenant(self, job_id: str) -> str | None:
        """Return whose a job is; ``None`` for an unknown one."""
        with redis_errors(self.settings):
            return self._ledger.tenant_of(job_id)

    def tenants(self) -> TenantStates:
        """Return the tenants with jobs that wait or run, or limits of their own, those with the most jobs first."""
        with redis_errors(self.settings):
            return self._ledger.tenant_states()

    def tenant(self, name: str) -> TenantState:
        """Return a tenant's jobs and limits; one that nobody has heard of has no jobs, and the limits of all."""
        with redis_errors(self.settings):
            found = [state for state in self._ledger.tenant_states().tenants if state.name == name]
            return found[0] if found else TenantState(name, 0, 0, self._ledger.tenant_limits(name), False, 0.0)

    def own_limits(self, tenant: str) -> TenantLimits:
        """Return what was set for a tenant by :meth:`set_tenant`."""
        with redis_errors(self.settings):
            return self._ledger.tenants().get(tenant, TenantLimits())

    def set_tenant(self, tenant: str, limits: TenantLimits | None) -> None:
        """Set a tenant's weight and limits, in place of those that it had; ``None`` takes them away.

        What is not limited here is limited by the settings ``tenant_...``. Its bucket of masks is full then.
        """
        with redis_errors(self.settings):
            self._ledger.set_tenant(tenant, limits or TenantLimits())

    def workers(self) -> list[LiveWorker]:
        """Return the workers of the namespace that are alive, by name, each as it last described itself."""
        with redis_errors(self.settings):
            return self._registry.workers()

    def no_worker(self, *models: str | None, of: Iterable[str] = ()) -> str | None:
        """Return a sentence that says that no worker is alive, and what to do; ``None`` while there is one.

        With the names of ``models`` (``None`` or ``default``: that of workers without a name), or the ids ``of`` jobs,
        of which the first 200 are looked at, each of the models needs one.
        """
        with redis_errors(self.settings):
            wanted = {model or DEFAULT_MODEL_NAME for model in models} | self._ledger.models(list(islice(of, PAGE)))
            if wanted <= {DEFAULT_MODEL_NAME} and not self._registry.count():
                return no_worker_sentence(self.settings.namespace)
            served = {worker.report.model for worker in self._registry.workers()} if wanted else set()
        # The reports of workers of another release may be unreadable; they count as alive, and serve the default one.
        unserved = wanted - (served or {DEFAULT_MODEL_NAME})
        return unserved_sentence(unserved, served) if unserved else None

    def _wait_timeout(self, message: str, of: Iterable[str]) -> WaitTimeout:
        """Return the error for jobs that had not ended in time, with the cause where no worker serves them."""
        cause = self.no_worker(of=of)
        return WaitTimeout(f"{message} {cause}" if cause else message)

    def _find_statuses(self, job_ids: list[str]) -> list[JobStatus | None]:
        with redis_errors(self.settings):
            return self._ledger.statuses(job_ids)

    def _documents(self, job_ids: list[str]) -> list[bytes]:
        with redis_errors(self.settings):
            return [unpack(document) for document in self._ledger.documents(job_ids)]

    def _jobs_and_shards(self, job_ids: list[str]) -> list[Job | Shard]:
        documents = self._documents(job_ids)
        return [parse_shard(document) if is_shard(document) else parse_job(document) for document in documents]

    def _jobs(self, job_ids: list[str]) -> list[Job]:
        unpacked = self._documents(job_ids)
        shards = [job_id for job_id, document in zip(job_ids, unpacked, strict=True) if is_shard(document)]
        if shards:
            raise InvalidDocumentError(
                f"{', '.join(shards[:5])}: a shard, and no job of one image. Its masks are in its parts; "
                "`Client.shard` returns its document."
            )
        return [parse_job(document) for document in unpacked]


def succeeded(result: JobResult) -> JobResult:
    """Return the result of a job that has succeeded; raises :class:`~maskscore.errors.JobFailed` for any other."""
    if result.state is not JobState.SUCCEEDED:
        code, message = (result.error.code, result.error.message) if result.error else (str(result.state), "")
        raise JobFailed(result.job_id, code, message)
    return result


def not_ended(status: JobStatus, deadline: Deadline) -> str:
    """Return what to say of a job that had not ended in time."""
    return (
        f"Job {status.job_id} had not ended after {deadline.timeout_s:g} s ({status.state}). It goes on; wait again, "
        "or cancel it."
    )


def no_such_job(*job_ids: str) -> JobNotFound:
    """Return the error for jobs that the ledger does not know."""
    return JobNotFound(
        f"No such job: {', '.join(job_ids[:5])}. It was never submitted to this Redis and namespace, or its "
        "record's time to live (MASKSCORE_RESULT_TTL_S) has passed."
    )
