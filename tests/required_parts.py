"""Real parts that tests need and that are not Python's: where one is missing, they are skipped, and with CI=true fail.

A test names its part by ``@pytest.mark.needs("Chromium", CHROMIUM)``: what it is called, and whether it is there.
"""

from __future__ import annotations

import os

import pytest

from maskscore.devstack import LocalServiceError, binaries

__all__ = ["require", "require_servers"]


def require(part: str, present: object, *, optional: bool = False) -> None:
    """Skip the present test where ``present`` is false; with CI=true fail it, unless the part is ``optional`` there."""
    if present:
        return
    if os.environ.get("CI") == "true" and not optional:
        pytest.fail(f"{part} is missing, and with CI=true nothing is skipped for want of it: install it", pytrace=False)
    pytest.skip(f"needs {part}, which is not here")


def require_servers() -> None:
    """:func:`require` the programs of Redis (or Valkey) and of SeaweedFS, the S3 server."""
    for part, find in (("redis-server or valkey-server", binaries.redis_server), ("SeaweedFS", binaries.weed)):
        try:
            find()
        except LocalServiceError:
            require(part, False)
