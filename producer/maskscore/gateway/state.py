"""What all requests of one gateway share, and how a handler gets at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import nullcontext
from typing import Annotated, Any, Final, TypeVar, cast

import anyio
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from maskscore.async_client import AsyncClient
from maskscore.content import with_content_id
from maskscore.gateway.problems import ProblemError
from maskscore.gateway.tokens import Tokens
from maskscore.job import Job
from maskscore.objects import Objects
from maskscore.settings import GatewaySettings
from maskscore.tracing import open_tracing

__all__ = ["Gateway", "SharedGateway", "authenticated"]

T = TypeVar("T")

_END: Final = object()
_bearer = HTTPBearer(auto_error=False, description="One of the gateway's tokens.")


class Gateway:
    """The settings, the client, the tokens, and whether it is about to stop."""

    def __init__(self, settings: GatewaySettings, tokens: Tokens | None, client: AsyncClient) -> None:
        self.settings = settings
        self.tokens = tokens
        self.client = client
        self.stopping = asyncio.Event()
        self.content = Objects(buckets=settings.gateway_content_buckets, result_buckets=())

    def tracing(self, request: Request) -> Any:
        """Return a context in which submits belong to the trace of the request, where traces are recorded."""
        # Under the name that the client records its submits with.
        tracing = open_tracing("maskscore-producer")
        return tracing.within(request.headers.get("traceparent")) if tracing else nullcontext()

    async def with_content_ids(self, jobs: list[Job]) -> list[Job]:
        """Return the jobs with ids made of what they are; only ETags in buckets that the settings name count."""
        return await self.client._call(lambda: [with_content_id(job, self.content) for job in jobs])

    async def while_wanted(self, request: Request, waiting: Coroutine[Any, Any, T | None]) -> T | None:
        """Wait for something as long as the caller is there and the gateway does not stop; ``None`` if it ended so."""
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(waiting),
            asyncio.create_task(_gone(request)),
            asyncio.create_task(self.stopping.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return tasks[0].result() if tasks[0].done() else None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until_stopping(self, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Yield the items until there are no more or the gateway is about to stop; closes what gives them."""
        stopping = asyncio.create_task(self.stopping.wait())
        following: asyncio.Task[T | object] | None = None
        try:
            while True:
                following = asyncio.create_task(_next(items))
                await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
                if not following.done() or (item := following.result()) is _END:
                    return
                yield cast(T, item)
        finally:
            # Also where the caller has gone, which cancels each further wait.
            with anyio.CancelScope(shield=True):
                tasks = [stopping, following] if following else [stopping]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await items.aclose()


async def _next(items: AsyncGenerator[T]) -> T | object:
    return await anext(items, _END)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


SharedGateway = Annotated[Gateway, Depends(_gateway)]


async def authenticated(
    request: Request,
    gateway: SharedGateway,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> None:
    """Refuse a request without a known token; the caller's name goes into the log."""
    if gateway.tokens is None:
        return
    name = gateway.tokens.name_of(credentials.credentials) if credentials else None
    if name is None:
        raise ProblemError(
            401,
            "unauthorized",
            "Send one of the gateway's tokens as `Authorization: Bearer TOKEN`.",
            headers={"WWW-Authenticate": 'Bearer realm="maskscore"'},
        )
    request.scope["maskscore.caller"] = name
