"""The gateway's HTTP server: one process, one event loop, until a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import uvicorn
from fastapi import FastAPI

from maskscore.broker import connect, public_url, refuse_cluster
from maskscore.errors import SettingsError
from maskscore.gateway.access_tokens import open_tokens
from maskscore.gateway.app import make_app
from maskscore.gateway.connection_limits import ConnectionLimits, limited_protocol, most_connections
from maskscore.gateway.probes import open_probes
from maskscore.settings import GatewaySettings

__all__ = ["run_gateway"]

log = logging.getLogger(__name__)


def run_gateway(settings: GatewaySettings, started: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends it at once.

    ``started`` is called with the URL when it listens. It begins and goes on while Redis is away. Raises
    :class:`~maskscore.errors.SettingsError` when the address cannot be opened, or other machines could reach it
    without a token.
    """
    tokens = open_tokens(settings)
    # An address that can never be used is refused here, in a sentence; once the server starts, it would be a traceback.
    with connect(settings) as client:
        refuse_cluster(client, settings)
    listening = _listen(settings)
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    app = make_app(settings, tokens)
    limits = ConnectionLimits(head_s=settings.gateway_header_timeout_s, most=most_connections())
    config = uvicorn.Config(
        app,
        http=limited_protocol(limits),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=max(1, round(settings.gateway_grace_s)),
    )
    log.info("serving %s, for %s, namespace %r", url, public_url(settings.redis_url), settings.namespace)
    server = _Server(config, app, lambda: started(url))
    with ExitStack() as stack:
        stack.callback(listening.close)
        if settings.gateway_probe_port:
            stack.callback(open_probes(settings, app).close)
        server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn's server, which also ends event streams and long polls when it stops."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._app = app
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals without raising them again at the end, as the parent does."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        gateway = getattr(self._app.state, "gateway", None)
        if gateway is not None:
            gateway.stopping.set()


def _listen(settings: GatewaySettings) -> socket.socket:
    host = settings.gateway_host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, settings.gateway_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise SettingsError(
            f"MASKSCORE_GATEWAY_PORT: {host}:{settings.gateway_port} cannot be opened: {error.strerror or error}. "
            "Take a port that is free."
        ) from error
    return listening
