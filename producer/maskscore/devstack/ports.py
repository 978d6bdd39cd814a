"""Free TCP ports on 127.0.0.1."""

from __future__ import annotations

import socket
from contextlib import ExitStack

SEAWEEDFS_GRPC_OFFSET = 10_000


def free_port() -> int:
    """A port nobody listens on now; it may be taken before its user binds it, who then has to ask again."""
    with _bound(0) as holder:
        return _number(holder)


def free_port_pairs(count: int) -> list[tuple[int, int]]:
    """``count`` different pairs (port, port + 10000), all free now: SeaweedFS's HTTP and gRPC ports."""
    pairs: list[tuple[int, int]] = []
    with ExitStack() as held:
        while len(pairs) < count:
            port = _number(held.enter_context(_bound(0)))
            try:
                held.enter_context(_bound(port + SEAWEEDFS_GRPC_OFFSET))
            except (OSError, OverflowError):
                continue
            pairs.append((port, port + SEAWEEDFS_GRPC_OFFSET))
    return pairs


def _bound(port: int) -> socket.socket:
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        holder.bind(("127.0.0.1", port))
    except BaseException:
        holder.close()
        raise
    return holder


def _number(holder: socket.socket) -> int:
    number: int = holder.getsockname()[1]
    return number
