"""The host names that the gateway accepts, so that no web page reaches it through a user's browser.

A page may send requests to ``http://localhost:8080``, and by a name of its own that it lets point to 127.0.0.1 (DNS
rebinding) it may read the answers, too. A token keeps it out; where none is asked for, the headers ``Host``, ``Origin``
and ``Sec-Fetch-Site`` do, which a page cannot choose.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from maskscore.gateway.access_tokens import is_loopback
from maskscore.gateway.problems import ProblemError
from maskscore.settings import GatewaySettings

__all__ = ["AllowedHosts"]

# What an orchestrator asks by the address of the pod.
_PROBES: Final = ("/livez", "/readyz", "/metrics")


class AllowedHosts:
    """The accepted host names.

    Parameters
    ----------
    settings: ``gateway_allowed_hosts``, or without them, the loopback names where only this machine can connect.
    open_to_all: whether no token is asked for.
    """

    def __init__(self, settings: GatewaySettings, *, open_to_all: bool) -> None:
        self._named = {host.lower().strip("[]") for host in settings.gateway_allowed_hosts}
        self._loopback = not self._named and open_to_all and is_loopback(settings.gateway_host)
        self._open_to_all = open_to_all

    def problem(self, scope: Scope) -> ProblemError | None:
        """Return why a request is not answered: its host is none of ours, or another site's page has sent it."""
        if scope["path"] in _PROBES:
            return None
        headers = Headers(scope=scope)
        host = _host_of(f"//{headers.get('host', '')}")
        if not self._answers_to(host):
            return ProblemError(
                421,
                "host_not_allowed",
                "The gateway does not answer to the name in the header `Host`. MASKSCORE_GATEWAY_ALLOWED_HOSTS names "
                "those that it answers to.",
            )
        if self._open_to_all and scope["path"].startswith("/v1/") and self._from_elsewhere(headers):
            return ProblemError(
                403, "cross_origin", "The request was sent by another site's page; without a token none is answered."
            )
        return None

    def _answers_to(self, host: str | None) -> bool:
        if "*" in self._named:
            return True
        if self._named:
            return host in self._named
        return not self._loopback or (host is not None and is_loopback(host))

    def _from_elsewhere(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        own = urlsplit(f"//{headers.get('host', '')}").netloc
        return urlsplit(origin).netloc.lower() != own.lower() and _host_of(origin) not in self._named


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
