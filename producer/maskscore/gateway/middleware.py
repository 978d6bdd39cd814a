"""ASGI middleware of every request: the limit of open requests, the host check, the logs and the metrics."""

from __future__ import annotations

import logging
import time
from typing import Final

from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maskscore.exporter import counter, gauge, histogram
from maskscore.gateway.allowed_hosts import AllowedHosts
from maskscore.gateway.authentication import WRITTEN, leave
from maskscore.gateway.problems import PROBLEM_CODE, ProblemError, answer
from maskscore.observability.metrics import GATEWAY_IN_PROGRESS, GATEWAY_REQUESTS, GATEWAY_SECONDS

__all__ = ["RequestMiddleware"]

log = logging.getLogger(__name__)
audit = logging.getLogger("maskscore.audit")

_PREFIX: Final = "/v1/"


class RequestMiddleware:
    """The middleware.

    Parameters
    ----------
    app: the application.
    most: open requests to ``/v1`` at most; further ones get 503.
    hosts: the host names that are accepted.
    registry: holds the metrics.
    """

    def __init__(self, app: ASGIApp, *, most: int, hosts: AllowedHosts, registry: CollectorRegistry) -> None:
        self._app = app
        self._most = most
        self._hosts = hosts
        self._open = 0
        self._requests = counter(GATEWAY_REQUESTS, registry)
        self._seconds = histogram(GATEWAY_SECONDS, registry)
        self._in_progress = gauge(GATEWAY_IN_PROGRESS, registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500
        first_s: float | None = None

        async def watched(message: Message) -> None:
            nonlocal status, first_s
            if message["type"] == "http.response.start":
                status, first_s = message["status"], time.perf_counter() - started
            await send(message)

        limited = scope["path"].startswith(_PREFIX)
        self._open += limited
        self._in_progress.set(self._open)
        try:
            if limited and self._open > self._most:
                busy = ProblemError(503, "overloaded", f"{self._most:,} requests are being answered.", retry_after_s=1)
                await answer(busy)(scope, receive, watched)
            elif refused := self._hosts.problem(scope):
                await answer(refused)(scope, receive, watched)
            else:
                await self._app(scope, receive, watched)
        finally:
            leave(scope)
            self._open -= limited
            self._in_progress.set(self._open)
            self._note(scope, status, time.perf_counter() - started, first_s, limited)

    def _note(self, scope: Scope, status: int, seconds: float, first_s: float | None, limited: bool) -> None:
        route = getattr(scope.get("route"), "path", "none")
        if limited:
            self._requests.labels(route, scope["method"], str(status)).inc()
            # Of a stream, how long it took to begin.
            self._seconds.labels(route).observe(seconds if first_s is None else first_s)
        if limited and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            self._audit(scope, status)
        log.log(
            logging.INFO if limited else logging.DEBUG,
            "%s %s %d %.1f ms, by %s",
            scope["method"],
            scope["path"],
            status,
            seconds * 1000,
            scope.get("maskscore.caller", "nobody known"),
        )

    def _audit(self, scope: Scope, status: int) -> None:
        """Log who has written what, and with which outcome."""
        path = scope.get("path_params") or {}
        about = {
            "caller": scope.get("maskscore.caller"),
            "action": getattr(scope.get("route"), "name", None),
            "target": scope.get(WRITTEN) or path.get("job_id") or path.get("batch_id"),
            "status": status,
            "code": scope.get(PROBLEM_CODE),
        }
        audit.info(
            "%s by %s: %s: %d%s",
            about["action"] or f"{scope['method']} {scope['path']}",
            about["caller"] or "nobody known",
            about["target"] or "no id",
            status,
            f" {about['code']}" if about["code"] else "",
            extra=about,
        )
