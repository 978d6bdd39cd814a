"""Authentication of requests: by token, with a limit of open requests per token, ended when a token is revoked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from fastapi import Request

from maskscore.gateway.access_tokens import Identity, Tokens
from maskscore.gateway.problems import ProblemError

__all__ = ["TokenRequests", "caller_of", "leave", "revoked_event", "unauthorized"]

_CALLER: Final = "maskscore.caller"
_REVOKED: Final = "maskscore.revoked"
_LEAVE: Final = "maskscore.leave"


class TokenRequests:
    """The open requests by token.

    Parameters
    ----------
    tokens: the known tokens; ``None`` where none is required.
    most: open requests per token at most.
    """

    def __init__(self, tokens: Tokens | None, *, most: int) -> None:
        self._tokens = tokens
        self._most = most
        self._open: Counter[str] = Counter()
        self._following: dict[Identity, set[asyncio.Event]] = {}

    def enter(self, scope: Any, token: str | None) -> None:
        """Admit a request until :func:`leave`. Raises a problem for an unknown token (401) and too many (503)."""
        scope[_REVOKED] = revoked = asyncio.Event()
        if self._tokens is None:
            return
        identity = self._tokens.identify(token) if token else None
        if identity is None:
            raise unauthorized()
        scope[_CALLER] = name = identity.name
        if self._open[name] >= self._most:
            detail = f"{self._most:,} requests of this token are being answered. Send the same again later."
            raise ProblemError(503, "overloaded", detail, retry_after_s=1)
        self._open[name] += 1
        self._following.setdefault(identity, set()).add(revoked)
        scope[_LEAVE] = lambda: self._leave(identity, revoked)

    def _leave(self, identity: Identity, revoked: asyncio.Event) -> None:
        self._open[identity.name] -= 1
        self._following[identity].discard(revoked)
        if not self._following[identity]:
            del self._following[identity]

    def end_revoked(self) -> None:
        """Reload the tokens, and end the requests of revoked ones."""
        if self._tokens is None:
            return
        self._tokens.reload_if_changed()
        for identity, events in self._following.items():
            if not self._tokens.knows(identity):
                for revoked in events:
                    revoked.set()


def leave(scope: Any) -> None:
    """Record that a request has been answered."""
    done: Callable[[], None] | None = scope.get(_LEAVE)
    if done is not None:
        done()


def caller_of(request: Request) -> str | None:
    """Return the name of the caller's token; ``None`` where none is required."""
    name: str | None = request.scope.get(_CALLER)
    return name


def revoked_event(request: Request) -> asyncio.Event:
    """Return the event that is set when the caller's token is revoked."""
    event: asyncio.Event = request.scope[_REVOKED]
    return event


def unauthorized() -> ProblemError:
    """Return the problem of a request without a known token."""
    return ProblemError(
        401,
        "unauthorized",
        "Send one of the gateway's tokens as `Authorization: Bearer TOKEN`.",
        headers={"WWW-Authenticate": 'Bearer realm="maskscore"'},
    )
