"""``/v1/jobs``: one job."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from maskscore.errors import MaskscoreError, WaitTimeout
from maskscore.gateway.authentication import WRITTEN, revoked_event, unauthorized
from maskscore.gateway.problems import ProblemError, problem_of, problems
from maskscore.gateway.request_bodies import JSON
from maskscore.gateway.shared_state import WORKERS_HEADER, Gateway, SharedGateway, add_workers_header
from maskscore.ledger import JobStatus
from maskscore.schema import JobId, JobResult, JobState

__all__ = ["JOB_OR_SHARD", "ContentId", "Ended", "NoContent", "failed_sse", "revoked_sse", "router"]

_MOST_WAIT_S: Final = 60
_ENDED_ID: Final = "ended"

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobIdText = Annotated[JobId, Path(examples=["photo-1"])]
ContentId = Annotated[
    bool,
    Query(
        description="Make the job's id of what the job is (the image, the masks, the options), whatever `job_id` says: "
        "the same work is done once, and a request may be repeated without an id. Shards keep their ids."
    ),
]

_EXAMPLE: Final = {
    "job_id": "photo-1",
    "image": "s3://photos/a.jpg",
    "masks": [{"id": "1", "segmentation": [[100, 100, 300, 100, 300, 300, 100, 300]], "predicted_iou": 0.93}],
    "options": {"treatment": "original", "top_k": 3},
}
JOB_OR_SHARD: Final = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Job", "Shard")]}
_JOB_BODY: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {JSON: {"schema": JOB_OR_SHARD, "example": _EXAMPLE}}}
}


class Accepted(BaseModel):
    """A job that is in the ledger: it will end visibly. Where it was known already, nothing was doubled."""

    job_id: str = Field(examples=["photo-1"])
    warning: str | None = Field(
        None,
        exclude_if=lambda warning: warning is None,
        description="Only where no live worker serves the model that the job asks for: it waits for one.",
    )


class Cancelled(BaseModel):
    """What cancelling has led to: a running job is still `running`, and stops at its next step."""

    job_id: str = Field(examples=["photo-1"])
    state: JobState


class Ended(BaseModel):
    """The data of an event `ended`."""

    job_id: str
    state: JobState


class NoContent(Exception):  # noqa: N818 - not an error: 204, which tells an EventSource not to come again
    """There is nothing after the caller's Last-Event-ID, and nothing will come."""


def revoked_sse() -> ServerSentEvent:
    """Return the event that ends a stream whose caller's token is revoked."""
    return ServerSentEvent(event="problem", raw_data=unauthorized().problem.model_dump_json(exclude_none=True))


def failed_sse(error: MaskscoreError) -> ServerSentEvent:
    """Return the event that says why a stream breaks off; its caller comes again and goes on."""
    problem = problem_of(error).problem
    return ServerSentEvent(event="problem", raw_data=problem.model_dump_json(exclude_none=True), retry=5000)


@router.post(
    "",
    status_code=202,
    response_model=Accepted,
    responses={
        202: {"headers": {"Location": {"description": "Where the job is.", "schema": {"type": "string"}}}},
        **problems(400, 401, 408, 409, 413, 415, 422, 429, 503),
    },
    openapi_extra=_JOB_BODY,
)
async def submit_job(
    request: Request, response: Response, gateway: SharedGateway, content_id: ContentId = False
) -> Accepted:
    """Submit one job, or one shard, which is a job by its `shard_id`.

    Repeating it, with the same id and document, is safe: it is the same job.
    """
    async with aclosing(
        gateway.bodies.submissions(request, one=True, batch_id=None, content_id=content_id)
    ) as submissions:
        async for submission in submissions:
            taken = await gateway.submitter.submit(submission, request)
    if taken.problem:
        raise taken.problem
    (job_id,) = taken.job_ids
    request.scope[WRITTEN] = f"job {job_id}"
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return Accepted(job_id=job_id, warning=await gateway.warning_of(taken.models))


@router.get(
    "/{job_id}",
    response_model=JobStatus,
    responses={200: {"headers": WORKERS_HEADER}, **problems(401, 404, 422, 503)},
)
async def get_job(job_id: JobIdText, gateway: SharedGateway, response: Response) -> JobStatus:
    """Say where a job is."""
    status = await gateway.client.status(job_id)
    if status.state is JobState.QUEUED:
        add_workers_header(response, await gateway.client.no_worker(of=[job_id]))
    return status


@router.get(
    "/{job_id}/result",
    response_class=Response,
    responses={
        200: {
            "description": "The result. A job that failed, was cancelled or expired has one, too: `state` and `error`.",
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/JobResult"}}},
        },
        **problems(401, 404, 409, 422, 503, waits=frozenset({409})),
    },
)
async def get_result(
    request: Request,
    job_id: JobIdText,
    gateway: SharedGateway,
    wait: Annotated[
        float, Query(ge=0, le=_MOST_WAIT_S, description="Seconds to wait for the job's end before the answer is 409.")
    ] = 0,
) -> Response:
    """Return the result of a job that has ended, or wait for it; 409 as long as it has not."""
    status = await gateway.client.status(job_id)
    if not status.state.ended and wait > 0:
        status = await gateway.run_while_connected(request, _ended_within(gateway, job_id, wait)) or status
    if not status.state.ended:
        if revoked_event(request).is_set():
            raise unauthorized()
        detail = f"Job {job_id} has not ended: it is {status.state}. Ask with ?wait=SECONDS, or listen to its events."
        if status.state is JobState.QUEUED and (no_worker := await gateway.client.no_worker(of=[job_id])):
            detail += f" {no_worker}"
        raise ProblemError(409, "not_ended", detail, retry_after_s=1)
    result: JobResult = await gateway.client.get(job_id)
    return Response(result.model_dump_json(), media_type=JSON)


async def _ended_within(gateway: Gateway, job_id: str, seconds: float) -> JobStatus | None:
    try:
        return await gateway.client.wait_for_end(job_id, seconds)
    except WaitTimeout:
        return None


@router.post("/{job_id}/cancel", response_model=Cancelled, responses=problems(401, 404, 422, 503))
async def cancel_job(job_id: JobIdText, gateway: SharedGateway) -> Cancelled:
    """Cancel a job: a queued one never runs, a running one stops at its next step, an ended one stays as it is."""
    return Cancelled(job_id=job_id, state=await gateway.client.cancel(job_id))


async def _job_to_follow(
    job_id: JobIdText,
    gateway: SharedGateway,
    response: Response,
    last_event_id: Annotated[str | None, Header(description="Sent by an EventSource that comes again.")] = None,
) -> str:
    status = await gateway.client.status(job_id)
    if last_event_id == _ENDED_ID:
        raise NoContent
    if status.state is JobState.QUEUED:
        add_workers_header(response, await gateway.client.no_worker(of=[job_id]))
    return job_id


@router.get(
    "/{job_id}/events",
    response_class=EventSourceResponse,
    responses={
        200: {"description": "An event `ended` (data: `Ended`) when the job has ended; comments until then."},
        204: {"description": "The caller has had that event."},
        **problems(401, 404, 422, 503),
    },
)
async def job_events(
    request: Request, job_id: Annotated[str, Depends(_job_to_follow)], gateway: SharedGateway
) -> AsyncIterator[ServerSentEvent]:
    """Follow a job to its end, as server-sent events."""

    async def end() -> AsyncGenerator[JobStatus]:
        yield await gateway.client.wait_for_end(job_id)

    try:
        async with aclosing(gateway.stream_while_authorized(request, end())) as ends:
            async for status in ends:
                data = Ended(job_id=job_id, state=status.state).model_dump_json()
                yield ServerSentEvent(event="ended", id=_ENDED_ID, raw_data=data)
        if revoked_event(request).is_set():
            yield revoked_sse()
    except MaskscoreError as error:
        yield failed_sse(error)
