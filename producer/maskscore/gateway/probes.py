"""``/livez``, ``/readyz`` and ``/metrics``: what an orchestrator and Prometheus ask, without a token."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack
from typing import Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from maskscore.client import Client
from maskscore.errors import MaskscoreError
from maskscore.exporter import Endpoint
from maskscore.gateway.problems import NO_QUEUE
from maskscore.gateway.shared_state import Gateway, SharedGateway
from maskscore.settings import GatewaySettings

__all__ = ["open_probes", "router"]

log = logging.getLogger(__name__)

_INTERVAL_S: Final = 2.0
_LONGEST_STALL_S: Final = 60.0

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
    except MaskscoreError as error:
        log.warning("not ready: %s", error)
        return PlainTextResponse(f"{NO_QUEUE}\n", 503)
    return PlainTextResponse("ok\n")


@router.get(
    "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
)
async def metrics(request: Request) -> Response:
    """Return the gateway's own metrics, in Prometheus's text format."""
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)


def open_probes(settings: GatewaySettings, app: FastAPI) -> ExitStack:
    """Answer the probes and ``/metrics`` on a port and in threads of their own; closing the stack ends that.

    Alive is the process whose event loop runs, ready is the one whose Redis has answered lately.
    """
    host = settings.gateway_host.strip("[]")
    with ExitStack() as stack:
        event_loop, redis_probe = _EventLoopProbe(app), _RedisProbe(settings)
        probes = {"/livez": event_loop.problem, "/readyz": lambda: event_loop.problem() or redis_probe.problem()}
        endpoint = Endpoint(
            host, settings.gateway_probe_port, app.state.registry, probes, setting="MASKSCORE_GATEWAY_PROBE_PORT"
        )
        redis_probe.start()
        stack.callback(redis_probe.close)
        endpoint.start()
        stack.callback(endpoint.close)
        return stack.pop_all()


class _EventLoopProbe:
    """Whether the event loop runs: it records the time every second."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def problem(self) -> str | None:
        """Return why the event loop counts as stalled; ``None`` while it runs."""
        gateway: Gateway | None = getattr(self._app.state, "gateway", None)
        if gateway is None:
            return None
        stalled_s = time.monotonic() - gateway.loop_ran_at
        return f"the event loop has stood still for {stalled_s:.0f} s" if stalled_s > _LONGEST_STALL_S else None


class _RedisProbe(threading.Thread):
    """A thread that asks Redis every two seconds."""

    def __init__(self, settings: GatewaySettings) -> None:
        super().__init__(name="redis_probe", daemon=True)
        self._client = Client(settings)
        self._closing = threading.Event()
        self._reason: str | None = "Redis has not been asked yet"

    def problem(self) -> str | None:
        """Return why Redis counts as away; ``None`` while it answers."""
        return self._reason

    def run(self) -> None:
        while True:
            before = self._reason
            try:
                self._client.backlog()
                self._reason = None
            except MaskscoreError as error:
                self._reason = NO_QUEUE
                if before != NO_QUEUE:
                    log.warning("not ready: %s", error)
            if self._closing.wait(_INTERVAL_S):
                return

    def close(self) -> None:
        """Stop the thread."""
        self._closing.set()
        self.join()
        self._client.close()
