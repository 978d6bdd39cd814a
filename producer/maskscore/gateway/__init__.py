"""The gateway: the client's verbs over HTTP, for upstream services that are not written in Python.

Needs the extra ``gateway``; nothing of it is imported here. It keeps nothing: what it is told stands in Redis, so that
any number of gateways may stand beside each other, and any of them goes on where another one stopped.
"""

from maskscore.gateway.app import (
    make_app,
)
from maskscore.gateway.openapi import (
    openapi_document,
)
from maskscore.gateway.server import (
    run_gateway,
)

__all__ = [
    "make_app",
    "openapi_document",
    "run_gateway",
]
