"""The HTTP API: the client's operations for programs that are not written in Python.

Needs the extra ``gateway``. A gateway is stateless: everything is in Redis, so any number of gateways can run side by
side.
"""

from maskscore.gateway.app import make_app
from maskscore.gateway.openapi import openapi_document
from maskscore.gateway.server import run_gateway

__all__ = [
    "make_app",
    "openapi_document",
    "run_gateway",
]
