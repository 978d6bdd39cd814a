"""The HTTP side of an exporter or a worker: ``/metrics``, and probes that answer 200 or 503 with a reason.

Needs the extra ``metrics``.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from maskscore.errors import SettingsError

__all__ = ["Endpoint", "Probe"]

log = logging.getLogger(__name__)

Probe = Callable[[], str | None]
"""Returns why the answer is no, or ``None`` where it is yes. It must not wait for anything."""

_CLIENT_TIMEOUT_S: Final = 10.0


class Endpoint:
    """An HTTP server in threads of its own.

    Parameters
    ----------
    host, port: where to listen; port 0 takes a free one.
    registry: what ``/metrics`` shows.
    probes: by path (``/livez``).
    setting: where the port comes from, for the error.

    Raises :class:`~maskscore.errors.SettingsError` when it cannot listen there.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        probes: Mapping[str, Probe],
        *,
        setting: str = "MASKSCORE_HTTP_PORT",
    ) -> None:
        self._metrics = make_wsgi_app(registry, disable_compression=True)
        self._probes = probes
        server_class = _server_class(host)
        try:
            self._server = server_class((host, port), _Handler)
        except OSError as error:
            raise SettingsError(
                f"{setting}: {host}:{port} cannot be opened: {error.strerror or error}. Take a port that is free."
            ) from error
        self._server.set_app(self._answer)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        path = request.get("PATH_INFO", "/")
        if request.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _text(respond, "405 Method Not Allowed", "only GET is answered here")
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(request, respond)
            return answer
        probe = self._probes.get(path)
        if probe is None:
            return _text(respond, "404 Not Found", f"there is {', '.join(['/metrics', *self._probes])}")
        reason = probe()
        return _text(respond, "200 OK", "ok") if reason is None else _text(respond, "503 Service Unavailable", reason)


def _text(respond: StartResponse, status: str, text: str) -> list[bytes]:
    body = f"{text}\n".encode()
    respond(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # The parent's looks the host's name up, which may take seconds where no name server answers.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request from %s broke off", client_address, exc_info=True)


def _server_class(host: str) -> type[_Server]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return type("_FamilyServer", (_Server,), {"address_family": family})


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)
