"""The state that all requests of one gateway share, as FastAPI dependencies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Coroutine
from typing import Annotated, Any, Final, TypeVar, cast

import anyio
from fastapi import Depends, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from maskscore.client import AsyncClient, no_such_batch, no_such_job
from maskscore.errors import ServiceUnavailable
from maskscore.gateway.access_tokens import Tokens
from maskscore.gateway.authentication import TokenRequests, revoked_event, sees_all, tenant_of
from maskscore.gateway.job_submission import JobSubmitter
from maskscore.gateway.request_bodies import BodyReader
from maskscore.schema import JOB_ID_PATTERN
from maskscore.settings import GatewaySettings
from maskscore.storage import Objects

__all__ = ["WORKERS_HEADER", "Gateway", "SharedGateway", "add_workers_header", "authenticated", "own_alone"]

T = TypeVar("T")

_END: Final = object()
_HOUSEKEEPING_INTERVAL_S: Final = 1.0
_WORKERS_HEADER_NAME: Final = "Maskscore-Workers"
WORKERS_HEADER: Final[dict[str, Any]] = {
    _WORKERS_HEADER_NAME: {
        "description": "`0`: jobs are queued and no live worker serves their model, so they wait. Absent otherwise.",
        "schema": {"type": "string", "enum": ["0"]},
    }
}
"""The response header as OpenAPI describes it."""
_bearer = HTTPBearer(auto_error=False, description="One of the gateway's tokens.")


class Gateway:
    """The settings, the client, the callers, and the stop event of one gateway process."""

    def __init__(self, settings: GatewaySettings, tokens: Tokens | None, client: AsyncClient) -> None:
        self.settings = settings
        self.client = client
        self.stopping = asyncio.Event()
        self.loop_ran_at = time.monotonic()
        self.callers = TokenRequests(
            tokens, most=settings.gateway_max_requests_per_token, rate=settings.gateway_requests_per_second
        )
        self.bodies = BodyReader(settings)
        # Content ids read ETags in the buckets of the settings alone.
        self._content = Objects(buckets=settings.gateway_content_buckets, result_buckets=())
        self.submitter = JobSubmitter(settings, client, self._content)

    async def run_housekeeping(self) -> None:
        """Record that the event loop runs, and end requests of revoked tokens, once per second."""
        while True:
            self.loop_ran_at = time.monotonic()
            self.callers.end_revoked()
            await asyncio.sleep(_HOUSEKEEPING_INTERVAL_S)

    async def warning_of(self, models: Collection[str]) -> str | None:
        """Return a sentence where no live worker serves one of the models that submitted jobs ask for.

        ``None`` also where Redis does not say: the jobs are accepted.
        """
        try:
            return await self.client.no_worker(*models) if models else None
        except ServiceUnavailable:
            return None

    def close(self) -> None:
        """Close the submitter and the object store."""
        self.submitter.close()
        self._content.close()

    async def run_while_connected(self, request: Request, waiting: Coroutine[Any, Any, T | None]) -> T | None:
        """Return the result, or ``None`` if the caller disconnects, its token is revoked, or the gateway stops."""
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(waiting),
            asyncio.create_task(_disconnected(request)),
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

    async def stream_while_authorized(self, request: Request, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Yield the items until the caller's token is revoked or the gateway stops; close the generator at the end."""
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


async def _disconnected(request: Request) -> None:
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
    """Refuse a request without a known token; record the caller's name for the access log."""
    gateway.callers.enter(request.scope, credentials.credentials if credentials else None)


async def own_alone(request: Request, gateway: SharedGateway) -> None:
    """Answer for another tenant's job or batch as for an unknown one, unless the caller may open all of them."""
    if sees_all(request):
        return
    client = gateway.client
    for name, find, unknown in (
        ("job_id", client._sync.job_tenant, no_such_job),
        ("batch_id", client._sync.batch_tenant, no_such_batch),
    ):
        found = request.path_params.get(name)
        # What cannot be an id is refused by the route.
        if found is None or not JOB_ID_PATTERN.fullmatch(found):
            continue
        if await client._call(find, found) != tenant_of(request):
            raise unknown(found)


def add_workers_header(response: Response, no_worker: str | None) -> None:
    """Add the header to a response about queued jobs where a sentence says that no worker serves them."""
    if no_worker is not None:
        response.headers[_WORKERS_HEADER_NAME] = "0"
