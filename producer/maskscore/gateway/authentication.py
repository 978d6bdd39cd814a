"""Authentication of requests: by token, with limits per token, ended when a token is revoked; and who may open what."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from fastapi import Request

from maskscore.gateway.access_tokens import Identity, Tokens
from maskscore.gateway.problems import ProblemError

__all__ = ["WRITTEN", "TokenRequests", "caller_of", "leave", "revoked_event", "sees_all", "tenant_of", "unauthorized"]

_CALLER: Final = "maskscore.caller"
_IDENTITY: Final = "maskscore.identity"
_REVOKED: Final = "maskscore.revoked"
_LEAVE: Final = "maskscore.leave"
WRITTEN: Final = "maskscore.written"
"""Where a request's scope says what it has submitted, for the audit line."""


class TokenRequests:
    """The open requests by token.

    Parameters
    ----------
    tokens: the known tokens; ``None`` where none is required.
    most: open requests per token at most, where nothing else holds for it.
    rate: requests per second and token, where nothing else holds for it; ``None``: any. What was not used for a second
        at most may be used later.
    """

    def __init__(self, tokens: Tokens | None, *, most: int, rate: float | None = None) -> None:
        self._tokens = tokens
        self._most = most
        self._rate = rate
        self._paid_until: dict[str, float] = {}
        self._open: Counter[str] = Counter()
        self._following: dict[Identity, set[asyncio.Event]] = {}

    def enter(self, scope: Any, token: str | None) -> None:
        """Admit a request until :func:`leave`. Raises a problem for an unknown token (401) and too many (429)."""
        scope[_REVOKED] = revoked = asyncio.Event()
        if self._tokens is None:
            return
        identity = self._tokens.identify(token) if token else None
        if identity is None:
            raise unauthorized()
        scope[_CALLER] = name = identity.name
        scope[_IDENTITY] = identity
        most = identity.requests or self._most
        if self._open[name] >= most:
            detail = f"{most:,} requests of this token are being answered. Send the same again later."
            raise ProblemError(429, "too_many_requests", detail, retry_after_s=1)
        self._count(name, identity.rate or self._rate)
        self._open[name] += 1
        self._following.setdefault(identity, set()).add(revoked)
        scope[_LEAVE] = lambda: self._leave(identity, revoked)

    def _count(self, name: str, rate: float | None) -> None:
        if rate is None:
            return
        now = time.monotonic()
        paid = max(self._paid_until.get(name, 0.0), now - 1)
        if paid > now:
            requests = "1 request" if rate == 1 else f"{rate:g} requests"
            detail = f"This token may send {requests} per second. Send the same again later."
            raise ProblemError(429, "too_many_requests", detail, retry_after_s=math.ceil(paid - now))
        self._paid_until[name] = paid + 1 / rate

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


def tenant_of(request: Request) -> str | None:
    """Return whose the jobs are that a request submits; ``None`` where no token is required."""
    identity: Identity | None = request.scope.get(_IDENTITY)
    return identity.tenant if identity else None


def sees_all(request: Request) -> bool:
    """Whether a request may open the jobs of all tenants: that of an admin, and any where no token is required."""
    identity: Identity | None = request.scope.get(_IDENTITY)
    return identity is None or identity.admin


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
