"""What all requests of one gateway share, and how a handler gets at it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from typing import Annotated, Any, Final, TypeVar, cast

import anyio
from fastapi import Depends, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from maskscore.client import AsyncClient
from maskscore.gateway.access_tokens import Tokens
from maskscore.gateway.authentication import Callers, revoked_event
from maskscore.gateway.job_submission import Intake
from maskscore.gateway.request_bodies import Bodies
from maskscore.settings import GatewaySettings
from maskscore.storage import Objects

__all__ = ["WORKERS_HEADER", "Gateway", "SharedGateway", "add_workers_header", "authenticated"]

T = TypeVar("T")

_END: Final = object()
_BEAT_S: Final = 1.0
_WORKERS_HEADER_NAME: Final = "Maskscore-Workers"
WORKERS_HEADER: Final[dict[str, Any]] = {
    _WORKERS_HEADER_NAME: {
        "description": "`0`: jobs are queued and no worker is alive, so they wait. Absent otherwise.",
        "schema": {"type": "string", "enum": ["0"]},
    }
}
"""The response header as OpenAPI describes it."""
_bearer = HTTPBearer(auto_error=False, description="One of the gateway's tokens.")


class Gateway:
    """The settings, the client, the callers, and whether it is about to stop."""

    def __init__(self, settings: GatewaySettings, tokens: Tokens | None, client: AsyncClient) -> None:
        self.settings = settings
        self.client = client
        self.stopping = asyncio.Event()
        self.beat = time.monotonic()
        self.callers = Callers(tokens, most=settings.gateway_max_requests_per_token)
        self.bodies = Bodies(settings)
        # Ids of contents ask for ETags in the buckets that the settings name, and nowhere else.
        self._content = Objects(buckets=settings.gateway_content_buckets, result_buckets=())
        self.intake = Intake(settings, client, self._content)

    async def look_after(self) -> None:
        """Note again and again that the event loop runs, and end what belongs to tokens that are revoked."""
        while True:
            self.beat = time.monotonic()
            self.callers.end_revoked()
            await asyncio.sleep(_BEAT_S)

    def close(self) -> None:
        """End what is not the client's."""
        self.intake.close()
        self._content.close()

    async def while_wanted(self, request: Request, waiting: Coroutine[Any, Any, T | None]) -> T | None:
        """Wait for something as long as the caller is there and known, and the gateway does not stop.

        Returns ``None`` if it ended so.
        """
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(waiting),
            asyncio.create_task(_gone(request)),
            asyncio.create_task(self.stopping.wait()),
            asyncio.create_task(revoked_event(request).wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return tasks[0].result() if tasks[0].done() else None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def while_known(self, request: Request, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Yield the items until there are no more, the caller's token is revoked, or the gateway is about to stop.

        Closes what gives them.
        """
        ends = [asyncio.create_task(self.stopping.wait()), asyncio.create_task(revoked_event(request).wait())]
        following: asyncio.Task[T | object] | None = None
        try:
            while True:
                following = asyncio.create_task(_next(items))
                await asyncio.wait([following, *ends], return_when=asyncio.FIRST_COMPLETED)
                if not following.done() or (item := following.result()) is _END:
                    return
                yield cast(T, item)
        finally:
            # Also where the caller has gone, which cancels each further wait.
            with anyio.CancelScope(shield=True):
                tasks = [*ends, following] if following else ends
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await items.aclose()


async def _next(items: AsyncGenerator[T]) -> T | object:
    return await anext(items, _END)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# Not a plain function: FastAPI would call it in a thread, and many requests at once in as many threads.
async def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


SharedGateway = Annotated[Gateway, Depends(_gateway)]


async def authenticated(
    request: Request,
    gateway: SharedGateway,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> None:
    """Refuse a request without a known token; the caller's name goes into the log."""
    gateway.callers.enter(request.scope, credentials.credentials if credentials else None)


async def add_workers_header(gateway: Gateway, response: Response) -> None:
    """Add the header to a response about queued jobs where no worker is alive."""
    if await gateway.client.no_worker() is not None:
        response.headers[_WORKERS_HEADER_NAME] = "0"
