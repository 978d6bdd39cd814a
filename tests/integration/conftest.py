"""What the integration tests share: one Redis and one S3 server for the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from maskscore.devstack import LocalServices
from surroundings import surroundings


@pytest.fixture(scope="package")
def services() -> Iterator[LocalServices]:
    """A private Redis and S3; the environment of this process points to them."""
    with LocalServices() as running, surroundings(running.environment()):
        yield running
