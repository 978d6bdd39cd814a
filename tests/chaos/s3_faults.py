"""A proxy in front of a real S3 server that answers some requests itself: 500, 503, or slowly.

SeaweedFS checks signatures, which cover the Host header; so requests reach it byte for byte as they were sent.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from weakref import WeakKeyDictionary

from chaos.proxy import Connection, TcpProxy

__all__ = ["S3FaultProxy"]

Watch = Callable[[str, int], bool]

_ERRORS = {
    403: ("Forbidden", "QuotaExceeded"),
    500: ("Internal Server Error", "InternalError"),
    503: ("Service Unavailable", "SlowDown"),
}
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)\s*\r\n", re.IGNORECASE)
_PIECE = 256


class S3FaultProxy(TcpProxy):
    """Answers a share of the requests with an error in S3's XML, or lets the answers trickle.

    HTTP/1.1 clients that do not pipeline, as boto3's do not, send a request only when they have the whole answer to
    the one before: an answer made up here never falls into one of the server's.

    ``asked`` and ``refused`` count requests. ``watch``, where set, is called (in a thread) with the method and path
    (``PUT /bucket/key``) and the client's port before a request is passed on; when it returns false, the connection is
    dropped instead.
    """

    def __init__(self, upstream_port: int, *, seed: int = 0) -> None:
        super().__init__(upstream_port)
        self.asked = self.refused = 0
        self.watch: Watch | None = None
        self._share = 0.0
        self._full = False
        self._bytes_per_s: float | None = None
        self._slow = ""
        self._paths: WeakKeyDictionary[Connection, str] = WeakKeyDictionary()
        self._random = random.Random(seed)

    def fail(self, share: float) -> None:
        """Answer this share (0 to 1) of the requests, drawn by chance, with 500 or 503."""
        self._share = share

    def fill(self) -> None:
        """Answer what would store something as a bucket does whose quota is used up, until :meth:`pass_on`."""
        self._full = True

    def trickle(self, bytes_per_s: float, *, only: str = "") -> None:
        """Send answers at this speed, until :meth:`pass_on`; ``only`` those to requests with this text in the path."""
        self._bytes_per_s, self._slow = bytes_per_s, only

    def pass_on(self) -> None:
        """Every request reaches the server, every answer the client."""
        self._share, self._full, self._bytes_per_s, self.watch = 0.0, False, None, None
        super().pass_on()

    async def _forth(self, connection: Connection) -> None:
        while True:
            try:
                head = await connection.from_client.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            self.asked += 1
            method, path = head.decode("latin-1").split(" ", 2)[:2]
            self._paths[connection] = path
            watch = self.watch
            if watch is not None and not await asyncio.to_thread(watch, f"{method} {path}", connection.peer_port):
                return
            full = self._full and method == "PUT"
            if full or self._random.random() < self._share:
                self.refused += 1
                connection.to_client.write(_error(403 if full else self._random.choice([500, 503]), path))
                await connection.to_client.drain()
                return
            connection.to_server.write(head)
            length = _LENGTH.search(head)
            left = int(length[1]) if length else 0
            while left:
                data = await connection.from_client.read(min(left, 1 << 16))
                if not data:
                    return
                left -= len(data)
                connection.to_server.write(data)
                await connection.to_server.drain()
            await connection.to_server.drain()

    async def _back(self, connection: Connection) -> None:
        while data := await connection.from_server.read(1 << 16):
            while data:
                speed = self._bytes_per_s if self._slow in self._paths.get(connection, "") else None
                piece, data = (data, b"") if speed is None else (data[:_PIECE], data[_PIECE:])
                if speed is not None:
                    await asyncio.sleep(len(piece) / speed)
                connection.to_client.write(piece)
                await connection.to_client.drain()


def _error(status: int, path: str) -> bytes:
    reason, code = _ERRORS[status]
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code>'
        f"<Message>Not now.</Message><Resource>{path.split('?')[0]}</Resource>"
        "<RequestId>0</RequestId></Error>"
    ).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
