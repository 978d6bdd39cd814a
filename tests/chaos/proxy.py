"""A TCP proxy in front of a real server, with switches: pass, delay, cut, reset, silence."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["Connection", "TcpProxy"]

_CHUNK = 1 << 16
_SWITCH_S = 10.0
Self = TypeVar("Self", bound="TcpProxy")
Answer = TypeVar("Answer")


class Connection:
    """One client's connection and the one made for it to the server; ``peer_port`` is the client's own port."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.from_client, self.to_client = client
        self.from_server, self.to_server = server
        self.silenced = False
        self.peer_port: int = self.to_client.get_extra_info("peername")[1]

    def close(self) -> None:
        """End both halves in good order: what was written is sent first."""
        self.to_client.close()
        self.to_server.close()

    def reset(self) -> None:
        """End both halves with RST, as a machine that lost the connection does."""
        for writer in (self.to_client, self.to_server):
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class TcpProxy:
    """Carries bytes between a port of its own on 127.0.0.1 and ``upstream_port``; runs in a thread of its own.

    Every switch takes effect before it returns. Use it as a context manager.
    """

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        # Stays bound, so that nobody takes the port while the proxy refuses connections.
        self._holder = _bound(0)
        self.port: int = self._holder.getsockname()[1]
        self._listener: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._delay_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)

    def __enter__(self: Self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    def pass_on(self) -> None:
        """Carry bytes at once, and accept connections again."""
        self._delay_s = 0.0
        self._do(self._listen())

    def delay(self, seconds: float) -> None:
        """Hold back every piece of data, in both directions, for so long."""
        self._delay_s = seconds

    def cut(self) -> None:
        """Drop every connection and refuse new ones, until :meth:`pass_on`."""
        self._do(self._cut())

    def reset(self) -> None:
        """Reset (RST) every connection that is open now; new ones are accepted."""
        self._do(self._reset())

    def silence(self) -> None:
        """Let every connection that is open now stay open and carry nothing any more; new ones are carried.

        So a connection looks to its client when the way to the server has forgotten it: no end, no error, no answer.
        """
        self._do(self._silence())

    def _do(self, change: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(change, self._loop).result(_SWITCH_S)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, sock=_bound(self.port))

    async def _cut(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._reset()

    async def _reset(self) -> None:
        present = set(self._connections)
        for connection in present:
            connection.reset()
        # The tasks that serve them end with them; new connections may come meanwhile.
        while present & self._connections:
            await asyncio.sleep(0.005)

    async def _silence(self) -> None:
        for connection in self._connections:
            connection.silenced = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection((reader, writer), server)
        self._connections.add(connection)
        ways = [asyncio.ensure_future(self._forth(connection)), asyncio.ensure_future(self._back(connection))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            connection.close()
            self._connections.discard(connection)

    async def _forth(self, connection: Connection) -> None:
        """Client to server."""
        await self._carry(connection, connection.from_client, connection.to_server)

    async def _back(self, connection: Connection) -> None:
        """Server to client."""
        await self._carry(connection, connection.from_server, connection.to_client)

    async def _carry(self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if connection.silenced:
                continue
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            writer.write(data)
            await writer.drain()


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made
