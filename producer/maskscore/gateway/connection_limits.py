"""Limits on HTTP connections: time and bytes for a request's line and headers, and the number of connections."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any, Final

from uvicorn.protocols.http.auto import AutoHTTPProtocol

__all__ = ["ConnectionLimits", "limited_protocol", "most_connections"]

log = logging.getLogger(__name__)

LONGEST_HEAD: Final = 64 * 1024
"""Bytes of a request's line and headers together."""

# Descriptors reserved for Redis, S3, pipes to processes, and files.
_KEPT_FREE: Final = 96
_MOST_WANTED: Final = 65_536
_NOTE_EVERY_S: Final = 10.0


class ConnectionLimits:
    """The limits that all connections of one server share.

    Parameters
    ----------
    head_s: seconds within which a request's line and headers must arrive.
    most: connections at most; one more closes the connection that has waited longest for a request.
    """

    def __init__(self, *, head_s: float, most: int) -> None:
        self.head_s = head_s
        self.most = most
        # Longest waiting first.
        self.waiting: dict[Any, None] = {}
        self._noted = -_NOTE_EVERY_S

    def note_full(self, now_s: float) -> None:
        """Log that there are too many connections, at most every ten seconds."""
        if now_s - self._noted >= _NOTE_EVERY_S:
            self._noted = now_s
            log.warning("more than %d connections: those that wait longest for a request are closed", self.most)


def limited_protocol(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with the limits; uvicorn's own timeout starts only after the first response."""

    class Limited(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _timer: asyncio.TimerHandle | None = None
        _head_bytes = 0
        # After a request for another protocol, httptools takes its body for that protocol's.
        _ignores_input = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()
            if len(self.connections) > limits.most:
                oldest = next(iter(limits.waiting))
                limits.note_full(self.loop.time())
                oldest._forget()
                oldest.transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._ignores_input:
                return
            before = self.cycle
            idle = before is None or before.response_complete
            super().data_received(data)
            if self.cycle is not before:
                self._forget()
                if any(name == b"upgrade" for name, _ in self.headers):
                    self._ignores_input, self.cycle.keep_alive = True, False
            elif idle and not self.transport.is_closing():
                if self._timer is None:
                    self._wait()
                # Of a body that was answered before it had come, the rest may still be on its way.
                self._head_bytes += 0 if before is not None and before.more_body else len(data)
                if self._head_bytes > LONGEST_HEAD:
                    self._refuse(b"431 Request Header Fields Too Large")

        def _wait(self) -> None:
            self._head_bytes = 0
            self._timer = self.loop.call_later(limits.head_s, self._refuse, b"408 Request Timeout")
            limits.waiting[self] = None

        def _forget(self) -> None:
            limits.waiting.pop(self, None)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _refuse(self, status: bytes) -> None:
            self._forget()
            if not self.transport.is_closing():
                # A client that has sent nothing would take it for the response to its next request.
                if self._head_bytes:
                    self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                self.transport.close()

    return Limited


def most_connections() -> int:
    """Return how many connections the process's descriptors allow, after asking for as many as it may have."""
    if sys.platform == "win32":
        return 512
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_WANTED if hard == resource.RLIM_INFINITY else min(hard, _MOST_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    most = _MOST_WANTED if soft == resource.RLIM_INFINITY else soft
    return max(16, most - _KEPT_FREE)
