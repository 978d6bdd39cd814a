"""``/livez``, ``/readyz`` and ``/metrics``: what an orchestrator and Prometheus ask, without a token."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from maskscore.errors import ServiceUnavailable
from maskscore.gateway.problems import NO_QUEUE
from maskscore.gateway.state import SharedGateway

__all__ = ["router"]

log = logging.getLogger(__name__)

router = APIRouter(tags=["health"], default_response_class=PlainTextResponse)

_REASON = {503: {"description": "It is not, and why.", "content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get("/livez")
async def livez() -> str:
    """Say that the process answers."""
    return "ok\n"


@router.get("/readyz", responses=_REASON)  # type: ignore[arg-type]
async def readyz(gateway: SharedGateway) -> PlainTextResponse:
    """Say whether requests can be served: Redis answers, and the gateway is not about to stop."""
    if gateway.stopping.is_set():
        return PlainTextResponse("the gateway is about to stop\n", 503)
    try:
        await gateway.client.backlog()
    except ServiceUnavailable as error:
        log.warning("not ready: %s", error)
        return PlainTextResponse(f"{NO_QUEUE}\n", 503)
    return PlainTextResponse("ok\n")


@router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
)
async def metrics(request: Request) -> Response:
    """Return the gateway's own metrics, in Prometheus's text format."""
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)
