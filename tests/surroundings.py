"""The environment of this process, changed for a while: where Redis and S3 are, for clients made in tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import boto3

__all__ = ["surroundings"]


@contextmanager
def surroundings(variables: Mapping[str, str]) -> Iterator[None]:
    """Lay variables over the environment, and put it back in the end."""
    before = dict(os.environ)
    os.environ.update(variables)
    # boto3 keeps the credentials that it has found once.
    boto3.setup_default_session()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        boto3.setup_default_session()
