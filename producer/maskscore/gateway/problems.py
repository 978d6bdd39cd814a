"""Problem documents (RFC 9457) with maskscore's stable codes: every error response of the gateway."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from maskscore.errors import (
    InvalidDocumentError,
    JobConflict,
    JobError,
    JobNotFound,
    MaskscoreError,
    PayloadTooLarge,
    QueueFull,
    ResultUnavailable,
    ServiceUnavailable,
    SettingsError,
    TooManyBatches,
)

__all__ = [
    "MEDIA_TYPE",
    "NO_QUEUE",
    "NO_STORAGE",
    "PROBLEM_CODE",
    "Problem",
    "ProblemError",
    "answer",
    "install_error_handlers",
    "problem_of",
    "problems",
]

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
PROBLEM_CODE: Final = "maskscore.problem"
"""Where a request's scope has the code of the problem that it was answered with."""
_LONGEST_DETAIL: Final = 2000

# Seconds after which it is worth trying again.
_RETRY_FULL_QUEUE_S: Final = 5
_RETRY_UNAVAILABLE_S: Final = 5

NO_QUEUE: Final = "The queue does not answer just now. Send the same again later; nothing is doubled."
NO_STORAGE: Final = "The object store does not answer just now. Send the same again later."
_DEFECT: Final = "A defect of the gateway; its log has the details."

_STATUS: Final[list[tuple[type[MaskscoreError], HTTPStatus]]] = [
    (JobNotFound, HTTPStatus.NOT_FOUND),
    (JobConflict, HTTPStatus.CONFLICT),
    (TooManyBatches, HTTPStatus.CONFLICT),
    (QueueFull, HTTPStatus.TOO_MANY_REQUESTS),
    (PayloadTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (ServiceUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (InvalidDocumentError, HTTPStatus.UNPROCESSABLE_ENTITY),
]

_MEANINGS: Final = {
    403: "`cross_origin`: where no token is asked for, the page of another site has sent the request. "
    "`tenant_not_allowed`: a job names another tenant than the token's.",
    400: "`request_invalid`: the body broke off, or `Upgrade` was asked for.",
    401: "`unauthorized`: the header `Authorization: Bearer TOKEN` is missing, or its token is not known.",
    404: "`job_not_found`, `batch_not_found`: never submitted here, another tenant's, or its time to live has passed. "
    "`result_unavailable`: the job succeeded, and the object with its result is gone; `result_of_another_job`: another "
    "job's result was written over it.",
    408: "`body_too_slow`: the body, or a line of it, did not come in time.",
    409: "`job_conflict`: another document, or another tenant's job or batch, has this id. `too_many_batches`: the "
    "job is in 1,000 batches. `not_ended`: the job has no result yet.",
    413: "`body_too_large`, `payload_too_large`: more bytes than the gateway or the queue takes.",
    415: "`media_type_unsupported`: send JSON, or where many jobs are sent, JSON Lines.",
    421: "`host_not_allowed`: the gateway does not answer to the name in `Host`.",
    422: "`document_invalid`, `document_version_unsupported`, `too_many_masks`, `too_many_jobs`: a job document does "
    "not fit. `request_invalid`: a parameter does not.",
    429: "`queue_full`: as many jobs are queued as may be, in all or of this tenant. `too_many_requests`: the "
    "token has as many requests as it may, at once or per second. Send the same again after `Retry-After`.",
    503: "`service_unavailable`, `overloaded`: Redis is away, or the gateway has too much to do. Try again after "
    "`Retry-After`.",
}
# What says when to come again; a 409 does where a job has not ended.
_WAITS: Final = {429, 503}


class Problem(BaseModel):
    """A problem document (RFC 9457). ``code`` is stable: scripts may compare it."""

    type: str = Field("about:blank", description="Always `about:blank`: `code` says which problem it is.")
    title: str = Field(description="The status in words.", examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="What was wrong, with which input, and what to do.")
    code: str = Field(examples=["job_not_found"])
    submitted: int | None = Field(
        None, description="Where many jobs were sent: how many were submitted before, from the first one on, at least."
    )
    batch_id: str | None = Field(None, description="Where many jobs were sent: the batch that they are in.")


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after_s: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        status = HTTPStatus(status)
        self.problem = Problem(
            title=status.phrase,
            status=status,
            detail=detail if len(detail) <= _LONGEST_DETAIL else detail[: _LONGEST_DETAIL - 4] + " ...",
            code=code,
            submitted=None,
            batch_id=None,
        )
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)

    def after(self, submitted: int, batch_id: str) -> ProblemError:
        """Return the problem that also says how many jobs were submitted before, and into which batch."""
        about = {"submitted": submitted, "batch_id": batch_id if submitted else None}
        return _rebuilt(self.problem.model_copy(update=about), self.headers)

    def __reduce__(self) -> Any:
        return _rebuilt, (self.problem, self.headers)


def _rebuilt(problem: Problem, headers: dict[str, str]) -> ProblemError:
    """Rebuild a problem that another process has sent."""
    error = ProblemError(problem.status, problem.code, problem.detail, headers=headers)
    error.problem = problem
    return error


def problem_of(error: MaskscoreError) -> ProblemError:
    """Return what one of maskscore's errors is over HTTP.

    What is behind the gateway (addresses, keys, scripts) is in the log alone.
    """
    cause = error.__cause__ if isinstance(error, ResultUnavailable) else error
    storage = isinstance(cause, JobError) and cause.input_may_be_fine
    # A SettingsError: Redis answers, and is none that can be used.
    if storage or isinstance(error, ServiceUnavailable | SettingsError):
        log.warning("answered with 503: %s: %s", error.code, error)
        code = error.code if storage else ServiceUnavailable.code
        return ProblemError(503, code, NO_STORAGE if storage else NO_QUEUE, retry_after_s=_RETRY_UNAVAILABLE_S)
    detail = str(error)
    if isinstance(error, ResultUnavailable):
        return ProblemError(404, error.code, detail)
    if isinstance(error, JobError):
        return ProblemError(422, error.code, detail)
    for kind, status in _STATUS:
        if isinstance(error, kind):
            waits = _RETRY_FULL_QUEUE_S if status == HTTPStatus.TOO_MANY_REQUESTS else None
            return ProblemError(status, error.code, detail, retry_after_s=waits)
    log.error("answered with 500: %s: %s", error.code, error)
    return ProblemError(500, "internal_error", _DEFECT)


def answer(error: ProblemError) -> Response:
    """Return the response."""
    body = error.problem.model_dump_json(exclude_none=True)
    return Response(body, error.problem.status, error.headers, media_type=MEDIA_TYPE)


def problems(*statuses: int, waits: frozenset[int] = frozenset()) -> dict[int | str, dict[str, Any]]:
    """Return the responses with these statuses, for OpenAPI; ``waits`` are further ones that send ``Retry-After``."""
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            **({"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers}} if headers else {}),
        }
        for status in statuses
        for headers in [_headers_of(status, waits)]
    }


def _headers_of(status: int, waits: frozenset[int]) -> list[str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return ["WWW-Authenticate"]
    return ["Retry-After"] if status in _WAITS or status in waits else []


def install_error_handlers(app: FastAPI) -> None:
    """Register handlers that answer every error of the application with a problem document."""

    def noted(request: Request, error: ProblemError) -> Response:
        # For the audit line.
        request.scope[PROBLEM_CODE] = error.problem.code
        return answer(error)

    async def own(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return noted(request, error)

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, MaskscoreError)
        return noted(request, problem_of(error))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        found = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3]]
        return noted(request, ProblemError(422, "request_invalid", f"The request is not valid: {'; '.join(found)}."))

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        code = status.phrase.lower().replace(" ", "_").replace("-", "_")
        detail = f"{status.phrase}. /openapi.json describes every path."
        return answer(ProblemError(status, code, detail, headers=dict(error.headers or {})))

    async def defect(_: Request, __: Exception) -> Response:
        return answer(ProblemError(500, "internal_error", _DEFECT))

    app.add_exception_handler(ProblemError, own)
    app.add_exception_handler(MaskscoreError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, defect)
