"""``/v1/batches``: many jobs, and their results as they end."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from maskscore.client import AsyncBatch, AsyncClient, Ending
from maskscore.errors import MaskscoreError, ResultUnavailable
from maskscore.gateway.authentication import WRITTEN, revoked_event, unauthorized
from maskscore.gateway.job_routes import JOB_OR_SHARD, ContentId, Ended, NoContent, failed_sse, revoked_sse
from maskscore.gateway.problems import ProblemError, problem_of, problems
from maskscore.gateway.request_bodies import JSON, JSON_LINES
from maskscore.gateway.shared_state import WORKERS_HEADER, SharedGateway, add_workers_header
from maskscore.ledger import BatchCounts, BatchEvent, JobRecord
from maskscore.schema import Failure, JobId, JobResult
from maskscore.text import counted

__all__ = ["router"]

_MOST_RESULTS: Final = 1000
# Results that are held in memory at once for one request.
_AT_ONCE: Final = 20

router = APIRouter(prefix="/v1/batches", tags=["batches"])

BatchIdText = Annotated[JobId, Path(examples=["nightly-2026-11-25"])]
# The place of an event in Redis's stream: two numbers of 64 bits.
_CURSOR: Final = r"^(0|[0-9]{1,19}-[0-9]{1,19})$"
Cursor = Annotated[str, Query(pattern=_CURSOR, description="The cursor to go on after.")]

_JOBS_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"type": "array", "minItems": 1, "items": JOB_OR_SHARD}},
            JSON_LINES: {
                "schema": {
                    "type": "string",
                    "description": "A `Job` or a `Shard` per line; taken as they come, without end.",
                },
                "example": '{"image": "s3://photos/a.jpg", "masks": "s3://masks/a.json"}\n',
            },
        },
    }
}


class AcceptedBatch(BaseModel):
    """Jobs that are in the ledger, as a batch. Those that were known already were not doubled."""

    batch_id: str = Field(examples=["nightly-2026-11-25"])
    submitted: int
    warning: str | None = Field(
        None,
        exclude_if=lambda warning: warning is None,
        description="Only where no live worker serves a model that jobs ask for: they wait for one.",
    )


class BatchView(BaseModel):
    """How many jobs of a batch are in which state."""

    batch_id: str
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    ended: int = Field(description="All that have ended, whatever way.")
    total: int

    @classmethod
    def of(cls, batch_id: str, counts: BatchCounts) -> BatchView:
        """Return the counts with their sums."""
        states = {state: getattr(counts, state) for state in BatchCounts.__dataclass_fields__}
        return cls(batch_id=batch_id, **states, ended=counts.ended, total=counts.total)


@router.post(
    "",
    status_code=202,
    response_model=AcceptedBatch,
    responses={
        202: {"headers": {"Location": {"description": "Where the batch is.", "schema": {"type": "string"}}}},
        **problems(400, 401, 408, 409, 413, 415, 422, 429, 503),
    },
    openapi_extra=_JOBS_BODY,
)
async def submit_batch(
    request: Request,
    response: Response,
    gateway: SharedGateway,
    batch_id: Annotated[
        JobId | None, Query(description="The batch that the jobs join; a new one where it is not given.")
    ] = None,
    content_id: ContentId = False,
) -> AcceptedBatch:
    """Submit many jobs or shards as a batch: a JSON list, or JSON Lines (a document per line, as long as you like).

    A request that broke off is repeated under the same `batch_id`: with a `job_id` in each document, or with
    `content_id`, nothing is doubled. A list is checked whole before the first job is submitted; lines are submitted as
    they come, and a problem says how many were.
    """
    batch_id = batch_id or uuid.uuid4().hex
    submitted = 0
    models: set[str] = set()
    bodies = gateway.bodies.submissions(request, one=False, batch_id=batch_id, content_id=content_id)
    try:
        async with aclosing(bodies) as submissions:
            async for submission in submissions:
                taken = await gateway.submitter.submit(submission, request)
                submitted += len(taken.job_ids)
                request.scope[WRITTEN] = f"batch {batch_id}, {counted(submitted, 'job')}"
                models |= taken.models
                if taken.problem:
                    raise taken.problem
                if revoked_event(request).is_set():
                    raise unauthorized()
    except ProblemError as problem:
        raise problem.after(submitted, batch_id) from problem
    if not submitted:
        raise ProblemError(422, "document_invalid", "The body has no jobs.")
    response.headers["Location"] = f"/v1/batches/{batch_id}"
    return AcceptedBatch(batch_id=batch_id, submitted=submitted, warning=await gateway.warning_of(models))


@router.get(
    "/{batch_id}",
    response_model=BatchView,
    responses={200: {"headers": WORKERS_HEADER}, **problems(401, 404, 422, 503)},
)
async def get_batch(batch_id: BatchIdText, gateway: SharedGateway, response: Response) -> BatchView:
    """Say how many jobs of a batch are in which state."""
    batch = gateway.client.batch(batch_id)
    counts = await batch.counts()
    if counts.queued:
        add_workers_header(response, await batch.no_worker())
    return BatchView.of(batch_id, counts)


@router.post("/{batch_id}/cancel", response_model=BatchView, responses=problems(401, 404, 422, 503))
async def cancel_batch(batch_id: BatchIdText, gateway: SharedGateway) -> BatchView:
    """Cancel every job that has not ended: queued ones never run, running ones stop at their next step."""
    return BatchView.of(batch_id, await gateway.client.batch(batch_id).cancel())


@router.get(
    "/{batch_id}/results",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "A `JobResult` per line, in the order in which the jobs have ended.",
            "content": {JSON_LINES: {"schema": {"type": "string"}}},
            "headers": {
                "Maskscore-Cursor": {
                    "description": "The `after` of the next page; also where this one is empty.",
                    "schema": {"type": "string"},
                },
                "Link": {
                    "description": '`<...>; rel="next"`: the next page; absent when all jobs have ended and been read.',
                    "schema": {"type": "string"},
                },
            },
        },
        **problems(401, 404, 422, 503),
    },
)
async def get_results(
    batch_id: BatchIdText,
    gateway: SharedGateway,
    after: Cursor = "0",
    limit: Annotated[int, Query(ge=1, le=_MOST_RESULTS, description="Most results in the page.")] = 100,
) -> StreamingResponse:
    """Return the results of jobs that have ended, page by page, the first to end first."""
    batch = gateway.client.batch(batch_id)
    counts = await batch.counts()
    events = await batch.ended_after(after, limit)
    cursor = events[-1].event_id if events else after
    headers = {"Maskscore-Cursor": cursor}
    if len(events) == limit or counts.ended < counts.total:
        headers["Link"] = f'</v1/batches/{batch_id}/results?after={cursor}&limit={limit}>; rel="next"'
    return StreamingResponse(_lines(gateway.client, batch, events), headers=headers, media_type=JSON_LINES)


async def _lines(client: AsyncClient, batch: AsyncBatch, events: list[BatchEvent]) -> AsyncIterator[bytes]:
    for start in range(0, len(events), _AT_ONCE):
        some = events[start : start + _AT_ONCE]
        for event, record in zip(some, await client.records([event.job_id for event in some]), strict=True):
            result = await _result(batch, event, record)
            if result is not None:
                yield result.model_dump_json().encode() + b"\n"


async def _result(batch: AsyncBatch, event: BatchEvent, record: JobRecord | None) -> JobResult | None:
    try:
        return await batch.result_of(Ending(event, record))
    except ResultUnavailable as error:
        problem = problem_of(error).problem
        failure = Failure(code=problem.code, message=problem.detail)
        return JobResult(job_id=event.job_id, batch_id=batch.batch_id, state=event.state, error=failure)


async def _place_to_follow(
    batch_id: BatchIdText,
    gateway: SharedGateway,
    response: Response,
    after: Cursor = "0",
    last_event_id: Annotated[
        str | None,
        Header(pattern=_CURSOR, description="As `after`; an EventSource that comes again sends it."),
    ] = None,
) -> tuple[AsyncBatch, str]:
    batch = gateway.client.batch(batch_id)
    counts = await batch.counts()
    if last_event_id and counts.ended == counts.total and not await batch.ended_after(last_event_id, 1):
        raise NoContent
    if counts.queued:
        add_workers_header(response, await batch.no_worker())
    return batch, last_event_id or after


@router.get(
    "/{batch_id}/events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "An event `ended` (data: `Ended`, id: the cursor) for each job that has ended, the first to "
            "end first, and `done` (data: `BatchView`) when all have; comments in between."
        },
        204: {"description": "All jobs have ended, and the caller has had their events."},
        **problems(401, 404, 422, 503),
    },
)
async def batch_events(
    request: Request, place: Annotated[tuple[AsyncBatch, str], Depends(_place_to_follow)], gateway: SharedGateway
) -> AsyncIterator[ServerSentEvent]:
    """Follow a batch until all its jobs have ended, as server-sent events, from any place on."""
    batch, cursor = place
    try:
        async with aclosing(gateway.stream_while_authorized(request, batch.events(cursor))) as pages:
            async for page in pages:
                for event in page:
                    cursor = event.event_id
                    data = Ended(job_id=event.job_id, state=event.state).model_dump_json()
                    yield ServerSentEvent(event="ended", id=cursor, raw_data=data)
        if revoked_event(request).is_set():
            yield revoked_sse()
        elif not gateway.stopping.is_set():
            view = BatchView.of(batch.batch_id, await batch.counts())
            yield ServerSentEvent(event="done", id=cursor, raw_data=view.model_dump_json())
    except MaskscoreError as error:
        yield failed_sse(error)
