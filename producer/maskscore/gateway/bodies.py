"""Job documents from the bodies of requests: no more bytes, jobs and masks than may be, and lines as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from fastapi import Request
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from maskscore.errors import FailureCode, JobError
from maskscore.gateway.problems import ProblemError
from maskscore.job import Job, parse_fields, parse_job
from maskscore.polling import PAGE
from maskscore.settings import GatewaySettings

__all__ = ["JSON", "JSON_LINES", "media_type", "read_job", "read_jobs"]

JSON: Final = "application/json"
JSON_LINES: Final = "application/x-ndjson"
_ALSO_JSON_LINES: Final = ("application/jsonl", "application/ndjson")
_NEXT_PIECE_S: Final = 60.0


def media_type(request: Request, *supported: str) -> str:
    """Return the body's media type. Raises a problem (415) for one that is not among the supported."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    given = JSON_LINES if given in _ALSO_JSON_LINES else given
    if given not in supported:
        raise ProblemError(
            415, "media_type_unsupported", f"Send the body with `Content-Type: {' or '.join(supported)}`."
        )
    return given


async def read_job(request: Request, settings: GatewaySettings) -> Job:
    """Read a body that is one job document.

    Raises a problem for one that is too large or comes too slowly, and :class:`~maskscore.errors.JobError`.
    """
    return _checked(parse_job(await _read(request, settings)), settings)


async def read_jobs(request: Request, settings: GatewaySettings) -> AsyncIterator[Job]:
    """Yield the jobs of a body that is a JSON list, or JSON Lines.

    A list is held in memory, and all of it is checked before the first is yielded; of lines, one at a time is held.
    Raises as :func:`read_job` does; errors name the item, counted from 0, or the line, counted from 1.
    """
    if media_type(request, JSON, JSON_LINES) == JSON:
        for job in await _listed(await _read(request, settings), settings):
            yield job
        return
    count, number = 0, 0
    async for line in _lines(request, settings):
        number += 1
        if not line.strip():
            continue
        count += 1
        _check_count(count, settings)
        with _placed(f"Line {number}"):
            job = _checked(parse_job(line), settings)
        yield job


async def _listed(body: bytes, settings: GatewaySettings) -> list[Job]:
    try:
        items = from_json(body)
    except ValueError as error:
        raise JobError(FailureCode.DOCUMENT_INVALID, f"The body is not JSON: {error}.") from error
    if not isinstance(items, list):
        raise JobError(FailureCode.DOCUMENT_INVALID, "The body must be a JSON list of job documents.")
    _check_count(len(items), settings)
    jobs = []
    for number, item in enumerate(items):
        # Other requests are answered in between: a long list takes seconds.
        if number % PAGE == 0:
            await asyncio.sleep(0)
        # Item by item, so that the error is of one document, and names it.
        with _placed(f"Item {number}"):
            jobs.append(_checked(parse_fields(item), settings))
    return jobs


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


def _check_count(count: int, settings: GatewaySettings) -> None:
    if count > settings.gateway_max_jobs:
        raise ProblemError(
            422,
            "too_many_jobs",
            f"A request may have {settings.gateway_max_jobs:,} jobs. Send the others with another request, under the "
            "same batch_id.",
        )


async def _read(request: Request, settings: GatewaySettings) -> bytes:
    body = bytearray()
    async for piece in _pieces(request):
        body += piece
        if len(body) > settings.gateway_max_body_bytes:
            raise _too_large(settings, "The body")
    return bytes(body)


async def _lines(request: Request, settings: GatewaySettings) -> AsyncIterator[bytes]:
    begun = bytearray()
    async for piece in _pieces(request):
        *ends, rest = piece.split(b"\n")
        for end in ends:
            begun += end
            if len(begun) > settings.gateway_max_body_bytes:
                break
            yield bytes(begun)
            begun.clear()
        else:
            begun += rest
        if len(begun) > settings.gateway_max_body_bytes:
            raise _too_large(settings, "A line of the body")
    if begun:
        yield bytes(begun)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_NEXT_PIECE_S):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except ClientDisconnect as error:
            raise ProblemError(400, "request_invalid", "The body broke off.") from error
        except TimeoutError as error:
            raise ProblemError(
                408, "body_too_slow", f"The next piece of the body did not come within {_NEXT_PIECE_S:g} s."
            ) from error
        yield piece


def _too_large(settings: GatewaySettings, what: str) -> ProblemError:
    return ProblemError(
        413,
        "body_too_large",
        f"{what} has more than {settings.gateway_max_body_bytes:,} bytes (MASKSCORE_GATEWAY_MAX_BODY_BYTES). Send "
        "fewer jobs at once, or put the masks into objects and give their URIs.",
    )
