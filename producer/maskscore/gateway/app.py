"""The gateway's FastAPI application: routes, error handlers and middleware."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Final

from fastapi import Depends, FastAPI, Request, Response

from maskscore.client import AsyncClient
from maskscore.exporter import new_registry
from maskscore.gateway import batch_routes, job_routes, probes
from maskscore.gateway.access_tokens import Tokens
from maskscore.gateway.allowed_hosts import AllowedHosts
from maskscore.gateway.job_routes import NoContent
from maskscore.gateway.middleware import RequestMiddleware
from maskscore.gateway.openapi import openapi_document
from maskscore.gateway.problems import install_error_handlers, problems
from maskscore.gateway.shared_state import Gateway, authenticated, own_alone
from maskscore.settings import GatewaySettings

__all__ = ["make_app"]

_DESCRIPTION: Final = """\
Scores segmentation masks with CLIP, as a service: submit jobs, follow them, read their results.

Every answer that is not a success of the API's own is a problem document (RFC 9457) with a stable `code`. A submit may
be repeated: the same `job_id` with the same document is the same job.
"""


def make_app(settings: GatewaySettings, tokens: Tokens | None) -> FastAPI:
    """Return the application (ASGI); ``tokens`` is ``None`` where none is required."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncClient(settings, threads=settings.gateway_threads) as client:
            app.state.gateway = gateway = Gateway(settings, tokens, client)
            watching = asyncio.create_task(gateway.run_housekeeping())
            yield
            watching.cancel()
            gateway.close()

    app = FastAPI(
        title="maskscore",
        version=metadata.version("maskscore"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.registry = new_registry()
    for router in (job_routes.router, batch_routes.router):
        app.include_router(
            router,
            dependencies=[Depends(authenticated), Depends(own_alone)],
            responses=problems(401, 403, 421, 429, 503),
        )
    app.include_router(probes.router)
    app.add_middleware(
        RequestMiddleware,
        most=settings.gateway_max_requests,
        hosts=AllowedHosts(settings, open_to_all=tokens is None),
        registry=app.state.registry,
    )
    install_error_handlers(app)
    app.add_exception_handler(NoContent, _no_content)
    app.openapi = lambda: openapi_document(app)  # type: ignore[method-assign]
    return app


async def _no_content(_: Request, __: Exception) -> Response:
    return Response(status_code=204)
