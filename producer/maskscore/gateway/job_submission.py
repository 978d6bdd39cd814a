"""Taking jobs in: documents are read, checked and submitted by a thread, large ones by a process of their own.

A body of 16 MiB with many polygons takes ten seconds to read, all of them with Python's lock held: in this process no
other request, and no probe, would be answered meanwhile.
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
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, Final, Literal

from fastapi import Request
from pydantic_core import from_json

from maskscore.client import PAGE, AsyncClient, Client, with_content_id
from maskscore.errors import FailureCode, JobError, MaskscoreError
from maskscore.gateway.authentication import caller_of
from maskscore.gateway.problems import ProblemError, problem_of
from maskscore.observability import log_to_stderr, open_tracing
from maskscore.schema import Job, parse_fields, parse_job
from maskscore.settings import GatewaySettings
from maskscore.storage import Objects

__all__ = ["Intake", "Order", "Taken"]

log = logging.getLogger(__name__)

_SMALL: Final = 32 * 1024
"""Bytes of documents that a thread reads in some ten milliseconds at the most."""


@dataclass(frozen=True, slots=True)
class Order:
    """Documents that came together.

    ``lines`` are numbered from ``first_line`` on; empty ones are left out. With a ``batch_id`` the jobs join that
    batch.
    """

    kind: Literal["job", "list", "lines"]
    documents: tuple[bytes, ...]
    batch_id: str | None = None
    content_id: bool = False
    traceparent: str | None = None
    first_line: int = 1

    @property
    def size(self) -> int:
        """Bytes of all documents."""
        return sum(map(len, self.documents))


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an order: the jobs' ids, or why some of them were not submitted."""

    job_ids: tuple[str, ...]
    problem: ProblemError | None


def take(order: Order, client: Client, content: Objects, settings: GatewaySettings) -> Taken:
    """Read, check and submit; all documents of the order are checked before the first is submitted."""
    ids: list[str] = []
    tracing = open_tracing("maskscore-producer")
    try:
        with tracing.within(order.traceparent) if tracing else nullcontext():
            jobs = iter(list(_read(order, settings)))
            while page := list(islice(jobs, PAGE)):
                if order.content_id:
                    page = [with_content_id(job, content) for job in page]
                if order.batch_id is None:
                    ids += [client.submit(job).job_id for job in page]
                else:
                    client.submit_many(page, batch_id=order.batch_id)
                    ids += [job.job_id for job in page]
    except ProblemError as problem:
        return Taken(tuple(ids), problem)
    except MaskscoreError as error:
        return Taken(tuple(ids), problem_of(error))
    return Taken(tuple(ids), None)


def _read(order: Order, settings: GatewaySettings) -> Iterator[Job]:
    if order.kind == "job":
        yield _checked(parse_job(order.documents[0]), settings)
    elif order.kind == "list":
        yield from _listed(order.documents[0], settings)
    else:
        for number, line in enumerate(order.documents, start=order.first_line):
            if line.strip():
                with _placed(f"Line {number}"):
                    job = _checked(parse_job(line), settings)
                yield job


def _listed(body: bytes, settings: GatewaySettings) -> Iterator[Job]:
    try:
        items = from_json(body)
    except ValueError as error:
        raise JobError(FailureCode.DOCUMENT_INVALID, f"The body is not JSON: {error}.") from error
    if not isinstance(items, list):
        raise JobError(FailureCode.DOCUMENT_INVALID, "The body must be a JSON list of job documents.")
    if len(items) > settings.gateway_max_jobs:
        raise too_many_jobs(settings)
    for number, item in enumerate(items):
        # Item by item, so that the error is of one document, and names it.
        with _placed(f"Item {number}"):
            job = _checked(parse_fields(item), settings)
        yield job


@contextmanager
def _placed(place: str) -> Iterator[None]:
    try:
        yield
    except JobError as error:
        raise JobError(FailureCode(error.code), f"{place}: {error}") from error


def _checked(job: Job, settings: GatewaySettings) -> Job:
    if isinstance(job.masks, list) and len(job.masks) > settings.gateway_max_masks:
        raise JobError(
            FailureCode.TOO_MANY_MASKS,
            f"The job has {len(job.masks):,} masks; a job may have {settings.gateway_max_masks:,}. Split it, or put "
            "the masks into an object and give its URI.",
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


class Intake:
    """Takes orders, the large ones in processes, no more at once for one caller than leave a process for the others."""

    def __init__(self, settings: GatewaySettings, client: AsyncClient, content: Objects) -> None:
        self._settings = settings
        self._client = client
        self._content = content
        self._processes = self._new_pool()
        each = max(1, settings.gateway_processes - 1)
        self._turns: defaultdict[str | None, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(each))

    async def take(self, order: Order, request: Request) -> Taken:
        """Take an order in.

        Raises a problem where the caller has gone before it was begun with (400), and when the process that was at it
        has ended by itself (503).
        """
        if order.size <= _SMALL:
            return await self._client._call(take, order, self._client._sync, self._content, self._settings)
        async with self._turns[caller_of(request)]:
            if await request.is_disconnected():
                raise ProblemError(400, "request_invalid", "The caller has gone.")
            pool = self._processes
            try:
                call: Future[Taken] = pool.submit(_take_here, order)
                return await asyncio.wrap_future(call)
            except BrokenProcessPool as error:
                log.error("a process that reads documents has ended by itself; new ones take its place")
                if self._processes is pool:
                    self._processes = self._new_pool()
                    pool.shutdown(wait=False)
                detail = "The documents could not be read just now. Send the same again; nothing is doubled."
                raise ProblemError(503, "overloaded", detail, retry_after_s=5) from error

    def close(self) -> None:
        """End the processes; what they are at still, its caller has had the time of the grace period for."""
        self._processes.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.kill()

    def _new_pool(self) -> ProcessPoolExecutor:
        # Started when they are needed first; not forked, since this process has threads.
        return ProcessPoolExecutor(
            self._settings.gateway_processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(self._settings,),
        )


_here: tuple[Client, Objects, GatewaySettings] | None = None


def _begin(settings: GatewaySettings) -> None:
    """Make a process ready: it has clients of its own, and ends when the gateway does, and not before."""
    global _here
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    log_to_stderr(settings.log_level, settings.log_format)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    content = Objects(buckets=settings.gateway_content_buckets, result_buckets=())
    _here = Client(settings), content, settings


def _take_here(order: Order) -> Taken:
    assert _here is not None
    return take(order, *_here)


def _end_with_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    wait([parent.sentinel])
    os._exit(0)
