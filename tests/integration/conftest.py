"""What the integration tests share: one Redis and one S3 server for the whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from maskscore.local import LocalServices


@pytest.fixture(scope="session")
def services() -> Iterator[LocalServices]:
    """A private Redis and S3; the environment of this process points to them."""
    before = dict(os.environ)
    with LocalServices() as running:
        os.environ.update(running.environment())
        yield running
    os.environ.clear()
    os.environ.update(before)
