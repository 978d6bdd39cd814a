"""Reading request bodies within limits of bytes, lines and time; JSON Lines are streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from maskscore.client import PAGE
from maskscore.gateway.authentication import caller_of
from maskscore.gateway.job_submission import SubmitRequest, too_many_jobs
from maskscore.gateway.problems import ProblemError
from maskscore.settings import MIB, GatewaySettings

__all__ = ["JSON", "JSON_LINES", "BodyReader", "media_type"]

JSON: Final = "application/json"
JSON_LINES: Final = "application/x-ndjson"
_ALSO_JSON_LINES: Final = ("application/jsonl", "application/ndjson")
_PAGE_BYTES: Final = 4 * MIB


def media_type(request: Request, *supported: str) -> str:
    """Return the body's media type. Raises a problem (415) for one that is not among the supported."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    given = JSON_LINES if given in _ALSO_JSON_LINES else given
    if given not in supported:
        raise ProblemError(
            415, "media_type_unsupported", f"Send the body with `Content-Type: {' or '.join(supported)}`."
        )
    return given


class BodyReader:
    """Reads bodies; all bytes in memory share one budget, of which a single caller gets half at most."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._held: dict[str | None, int] = {}

    async def submissions(
        self, request: Request, *, one: bool, batch_id: str | None, content_id: bool
    ) -> AsyncGenerator[SubmitRequest]:
        """Yield the submissions of a body: one job (``one``), a JSON list of jobs, or JSON Lines page by page.

        The bytes of a submission count as held until the next one is requested. Raises a problem for a body that is too
        large or comes too slowly, for too many lines, and where too much is held already.
        """
        if "upgrade" in request.headers:
            # The parser of HTTP gives up the body of such a request; Java's client sends it unless it is told not to.
            detail = "The request asks for another protocol (`Upgrade`), and its body is lost. Send it as HTTP/1.1."
            raise ProblemError(400, "request_invalid", detail)
        traceparent = request.headers.get("traceparent")
        kind = media_type(request, JSON) if one else media_type(request, JSON, JSON_LINES)
        with self._share(request) as share:
            if kind == JSON:
                body = await self._whole(request, share)
                yield SubmitRequest("job" if one else "list", (body,), batch_id, content_id, traceparent)
                return
            count, number, page = 0, 1, list[bytes]()
            async for line in self._lines(request, share):
                count += bool(line.strip())
                if count > self._settings.gateway_max_jobs:
                    raise too_many_jobs(self._settings)
                page.append(line)
                share.grow(len(line))
                if len(page) >= PAGE or sum(map(len, page)) > _PAGE_BYTES:
                    yield SubmitRequest("lines", tuple(page), batch_id, content_id, traceparent, number)
                    number += len(page)
                    share.shrink(sum(map(len, page)))
                    page = []
            if page:
                yield SubmitRequest("lines", tuple(page), batch_id, content_id, traceparent, number)

    async def _whole(self, request: Request, share: _HeldBytes) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.gateway_body_timeout_s):
                async for piece in _pieces(request):
                    body += piece
                    share.grow(len(piece))
                    if len(body) > self._settings.gateway_max_body_bytes:
                        raise _too_large(self._settings, "The body")
        except TimeoutError as error:
            raise self._too_slow("The body") from error
        return bytes(body)

    async def _lines(self, request: Request, share: _HeldBytes) -> AsyncIterator[bytes]:
        begun = bytearray()
        pieces = _pieces(request)
        loop = asyncio.get_running_loop()
        # A line has its time from the moment at which it could begin.
        deadline = loop.time() + self._settings.gateway_body_timeout_s
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    piece = await anext(pieces, None)
            except TimeoutError as error:
                raise self._too_slow("A line of the body") from error
            if piece is None:
                break
            *ends, rest = piece.split(b"\n")
            for end in ends:
                if len(begun) + len(end) > self._settings.gateway_max_body_bytes:
                    raise _too_large(self._settings, "A line of the body")
                share.shrink(len(begun))
                line = bytes(begun + end)
                begun.clear()
                yield line
            if ends:
                deadline = loop.time() + self._settings.gateway_body_timeout_s
            begun += rest
            share.grow(len(rest))
            if len(begun) > self._settings.gateway_max_body_bytes:
                raise _too_large(self._settings, "A line of the body")
        if begun:
            share.shrink(len(begun))
            yield bytes(begun)

    def _too_slow(self, what: str) -> ProblemError:
        return ProblemError(
            408, "body_too_slow", f"{what} did not come within {self._settings.gateway_body_timeout_s:g} s."
        )

    def _share(self, request: Request) -> _HeldBytes:
        return _HeldBytes(self._held, caller_of(request), self._settings.gateway_max_held_bytes)


class _HeldBytes:
    """The bytes in memory of one request."""

    def __init__(self, held: dict[str | None, int], caller: str | None, most: int) -> None:
        self._held = held
        self._caller = caller
        self._most = most
        self._own = 0

    def __enter__(self) -> _HeldBytes:
        return self

    def __exit__(self, *_: object) -> None:
        self.shrink(self._own)
        if not self._held.get(self._caller):
            self._held.pop(self._caller, None)

    def grow(self, size: int) -> None:
        """Hold more. Raises a problem (503) where that is too much, of all callers or of this one alone."""
        self._own += size
        self._held[self._caller] = of_caller = self._held.get(self._caller, 0) + size
        alone = self._most // 2 if self._caller is not None else self._most
        if of_caller > alone or sum(self._held.values()) > self._most:
            detail = "As many bytes are held as may be (MASKSCORE_GATEWAY_MAX_HELD_BYTES). Send the same again later."
            raise ProblemError(503, "overloaded", detail, retry_after_s=1)

    def shrink(self, size: int) -> None:
        """Hold less."""
        self._own -= size
        self._held[self._caller] = self._held.get(self._caller, 0) - size


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            piece = await anext(stream)
        except StopAsyncIteration:
            return
        except ClientDisconnect as error:
            raise ProblemError(400, "request_invalid", "The body broke off.") from error
        yield piece


def _too_large(settings: GatewaySettings, what: str) -> ProblemError:
    return ProblemError(
        413,
        "body_too_large",
        f"{what} has more than {settings.gateway_max_body_bytes:,} bytes (MASKSCORE_GATEWAY_MAX_BODY_BYTES). Send "
        "fewer jobs at once, or put the masks into objects and give their URIs.",
    )
