"""Documents of jobs and shards → submitted ones: parsed, checked, submitted in a thread, or large in a process pool.

Parsing a body of 16 MiB with many polygons holds Python's GIL for ten seconds. In this process, that would block every
other request and every probe.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, Final, Literal

from fastapi import Request
from pydantic_core import from_json

from maskscore.client import PAGE, AsyncClient, Client, with_content_id
from maskscore.errors import FailureCode, JobError, MaskscoreError
from maskscore.gateway.authentication import caller_of, sees_all, tenant_of
from maskscore.gateway.problems import ProblemError, problem_of
from maskscore.observability import log_to_stderr, open_tracing
from maskscore.schema import Job, Shard, job_or_shard, parse_job_or_shard
from maskscore.settings import GatewaySettings
from maskscore.storage import Objects

__all__ = ["JobSubmitter", "SubmitOutcome", "SubmitRequest"]

log = logging.getLogger(__name__)

_SMALL: Final = 32 * 1024
"""Documents of up to this many bytes are parsed in a thread, which takes some ten milliseconds at most."""


@dataclass(frozen=True, slots=True)
class SubmitRequest:
    """Documents that came together.

    ``lines`` are numbered from ``first_line`` on; empty ones are left out. With a ``batch_id`` the jobs join that
    batch. ``tenant`` is whose those are that name none; ``for_others``: they may name another,
    and join its batches.
    """

    kind: Literal["job", "list", "lines"]
    documents: tuple[bytes, ...]
    batch_id: str | None = None
    content_id: bool = False
    traceparent: str | None = None
    first_line: int = 1
    tenant: str | None = None
    for_others: bool = True

    @property
    def size(self) -> int:
        """Bytes of all documents."""
        return sum(map(len, self.documents))


@dataclass(frozen=True, slots=True)
class SubmitOutcome:
    """The ids of the submitted jobs, the models that they ask for, and the problem where some were not submitted."""

    job_ids: tuple[str, ...]
    models: frozenset[str]
    problem: ProblemError | None


def submit_documents(
    submission: SubmitRequest, client: Client, content: Objects, settings: GatewaySettings
) -> SubmitOutcome:
    """Parse, check and submit; all documents are checked before the first is submitted."""
    ids: list[str] = []
    models: set[str] = set()
    tracing = open_tracing("maskscore-producer")
    try:
        with tracing.within(submission.traceparent) if tracing else nullcontext():
            jobs = iter(list(_read(submission, settings)))
            while page := list(islice(jobs, PAGE)):
                if submission.content_id:
                    apart = not submission.for_others
                    page = [
                        with_content_id(job, content, of_tenant=apart) if isinstance(job, Job) else job for job in page
                    ]
                if submission.batch_id is not None:
                    page = client._named(page, submission.batch_id, content_id=False)
                batch_id = submission.batch_id or page[0].batch_id
                client._submit(page, batch_id, False, apart=not submission.for_others)
                ids += [job.job_id for job in page]
                models |= {job.options.model for job in page if job.options.model is not None}
    except ProblemError as problem:
        return SubmitOutcome(tuple(ids), frozenset(models), problem)
    except MaskscoreError as error:
        return SubmitOutcome(tuple(ids), frozenset(models), problem_of(error))
    return SubmitOutcome(tuple(ids), frozenset(models), None)


def _read(submission: SubmitRequest, settings: GatewaySettings) -> Iterator[Job | Shard]:
    if submission.kind == "job":
        yield _checked(parse_job_or_shard(submission.documents[0]), submission, settings)
    elif submission.kind == "list":
        yield from _listed(submission, settings)
    else:
        for number, line in enumerate(submission.documents, start=submission.first_line):
            if line.strip():
                with _placed(f"Line {number}"):
                    job = _checked(parse_job_or_shard(line), submission, settings)
                yield job


def _listed(submission: SubmitRequest, settings: GatewaySettings) -> Iterator[Job | Shard]:
    try:
        items = from_json(submission.documents[0])
    except ValueError as error:
        raise JobError(FailureCode.DOCUMENT_INVALID, f"The body is not JSON: {error}.") from error
    if not isinstance(items, list):
        raise JobError(FailureCode.DOCUMENT_INVALID, "The body must be a JSON list of job documents.")
    if len(items) > settings.gateway_max_jobs:
        raise too_many_jobs(settings)
    for number, item in enumerate(items):
        # Item by item, so that the error is of one document, and names it.
        with _placed(f"Item {number}"):
            job = _checked(job_or_shard(item), submission, settings)
        yield job


@contextmanager
def _placed(place: str) -> Iterator[None]:
    try:
        yield
    except JobError as error:
        raise JobError(FailureCode[error.code.upper()], f"{place}: {error}") from error


def _checked(job: Job | Shard, submission: SubmitRequest, settings: GatewaySettings) -> Job | Shard:
    if isinstance(job, Job) and isinstance(job.masks, list) and len(job.masks) > settings.gateway_max_masks:
        raise JobError(
            FailureCode.TOO_MANY_MASKS,
            f"The job has {len(job.masks):,} masks; a job may have {settings.gateway_max_masks:,}. Split it, or put "
            "the masks into an object and give its URI.",
        )
    if job.tenant is None:
        return job.model_copy(update={"tenant": submission.tenant})
    if job.tenant != submission.tenant and not submission.for_others:
        raise ProblemError(
            403,
            "tenant_not_allowed",
            f"Job {job.job_id} names the tenant {job.tenant!r}; this token submits for {submission.tenant!r}. Leave "
            "`tenant` out, or use a token with `admin`.",
        )
    return job


def too_many_jobs(settings: GatewaySettings) -> ProblemError:
    """Return the problem of a request with too many jobs."""
    return ProblemError(
        422,
        "too_many_jobs",
        f"A request may have {settings.gateway_max_jobs:,} jobs. Send the others with another request, under the "
        "same batch_id.",
    )


class JobSubmitter:
    """Submits documents, large ones in a process pool of which one caller never occupies every process."""

    def __init__(self, settings: GatewaySettings, client: AsyncClient, content: Objects) -> None:
        self._settings = settings
        self._client = client
        self._content = content
        self._processes = self._new_pool()
        each = max(1, settings.gateway_processes - 1)
        self._turns: defaultdict[str | None, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(each))

    async def submit(self, submission: SubmitRequest, request: Request) -> SubmitOutcome:
        """Parse, check and submit the documents of one request.

        Raises a problem where the caller disconnects before its turn (400), and when the process that handles the
        documents dies (503).
        """
        submission = replace(submission, tenant=tenant_of(request), for_others=sees_all(request))
        if submission.size <= _SMALL:
            return await self._client._call(
                submit_documents, submission, self._client._sync, self._content, self._settings
            )
        async with self._turns[caller_of(request)]:
            if await request.is_disconnected():
                raise ProblemError(400, "request_invalid", "The caller has gone.")
            pool = self._processes
            try:
                call: Future[SubmitOutcome] = pool.submit(_submit_in_process, submission)
                return await asyncio.wrap_future(call)
            except BrokenProcessPool as error:
                log.error("a process that reads documents has ended by itself; new ones take its place")
                if self._processes is pool:
                    self._processes = self._new_pool()
                    pool.shutdown(wait=False)
                detail = "The documents could not be read just now. Send the same again; nothing is doubled."
                raise ProblemError(503, "overloaded", detail, retry_after_s=5) from error

    def close(self) -> None:
        """End the processes at once; unfinished requests have had the grace period."""
        self._processes.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.kill()

    def _new_pool(self) -> ProcessPoolExecutor:
        # Spawned on first use; not forked, since this process has threads.
        return ProcessPoolExecutor(
            self._settings.gateway_processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_initialise_process,
            initargs=(self._settings,),
        )


_process_state: tuple[Client, Objects, GatewaySettings] | None = None


def _initialise_process(settings: GatewaySettings) -> None:
    """Initialise a process of the pool: it has its own clients, ignores signals, and ends with the gateway."""
    global _process_state
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    log_to_stderr(settings.log_level, settings.log_format)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    content = Objects(buckets=settings.gateway_content_buckets, result_buckets=())
    _process_state = Client(settings), content, settings


def _submit_in_process(submission: SubmitRequest) -> SubmitOutcome:
    assert _process_state is not None
    return submit_documents(submission, *_process_state)


def _end_with_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    wait([parent.sentinel])
    os._exit(0)
