"""The hosts that the gateway answers to, and the origins whose pages may send requests."""

from __future__ import annotations

from typing import Any

import pytest

from maskscore.gateway.allowed_hosts import AllowedHosts
from maskscore.settings import GatewaySettings


def asked(hosts: AllowedHosts, path: str = "/v1/jobs", **headers: str) -> int:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: Any = {"type": "http", "path": path, "headers": named}
    problem = hosts.problem(scope)
    return problem.problem.status if problem else 200


def hosts(*allowed: str, host: str = "127.0.0.1", open_to_all: bool = True) -> AllowedHosts:
    return AllowedHosts(GatewaySettings(gateway_host=host, gateway_allowed_hosts=allowed), open_to_all=open_to_all)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "LOCALHOST", "a.localhost", "127.0.0.1:1", "[::1]:8080"]
)
def test_on_this_machine_alone_its_own_names_are_answered_to(host: str) -> None:
    assert asked(hosts(), host=host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.7", "127.0.0.1.evil.example", "", "["]
)
def test_and_no_others(host: str) -> None:
    assert asked(hosts(), host=host) == 421
    assert asked(hosts()) == 421
    # An orchestrator asks by the pod's address.
    assert asked(hosts(), "/readyz", host=host) == 200


def test_with_tokens_or_where_others_may_connect_any_host_is_unless_some_are_named() -> None:
    assert asked(hosts(open_to_all=False), host="gateway.internal") == 200
    assert asked(hosts(host="0.0.0.0"), host="gateway.internal") == 200
    for open_to_all in (False, True):
        named = hosts("gateway.internal", "[fd00::7]", open_to_all=open_to_all)
        assert asked(named, host="Gateway.internal:80") == asked(named, host="[fd00::7]:80") == 200
        assert asked(named, host="localhost") == 421
    assert asked(hosts("*"), host="whatever") == 200


def test_without_tokens_pages_of_other_sites_are_refused() -> None:
    own = hosts()
    assert asked(own, host="localhost:8080", origin="http://localhost:8080") == 200
    assert asked(own, host="localhost:8080", sec_fetch_site="same-origin") == 200
    assert asked(own, host="localhost:8080", sec_fetch_site="none") == 200
    for origin in ("http://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:8080"):
        assert asked(own, host="localhost:8080", origin=origin) == 403
    for site in ("cross-site", "same-site"):
        assert asked(own, host="localhost:8080", sec_fetch_site=site) == 403
    # The page of a host that is named, behind a proxy that changes `Host`.
    assert asked(hosts("app.internal", "gateway"), host="gateway", origin="https://app.internal") == 200
    # A page does not know the token.
    assert asked(hosts(open_to_all=False), host="localhost", origin="http://evil.example") == 200
