"""A caller whose job waits is told where no worker is alive: a header, and a sentence where there is a problem."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Response

from maskscore.gateway.state import Gateway

__all__ = ["WORKERS_HEADER", "say_if_no_worker"]

_NAME: Final = "Maskscore-Workers"
WORKERS_HEADER: Final[dict[str, Any]] = {
    _NAME: {
        "description": "`0`: jobs are queued and no worker is alive, so they wait. Absent otherwise.",
        "schema": {"type": "string", "enum": ["0"]},
    }
}
"""The header as OpenAPI describes it."""


async def say_if_no_worker(gateway: Gateway, response: Response) -> None:
    """Put the header on the answer to a caller whose jobs are queued, where no worker is alive."""
    if await gateway.client.no_worker() is not None:
        response.headers[_NAME] = "0"
