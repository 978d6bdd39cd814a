"""What surrounds a process: its variables (where Redis and S3 are), and the signals that its parent ignores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import boto3

__all__ = ["ignoring", "surroundings"]


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


def ignoring(signal_name: str, *command: str) -> list[str]:
    """Return a command that runs ``command`` as a parent would that ignores this signal (``INT``, ``HUP``)."""
    return ["sh", "-c", f"trap '' {signal_name}; exec \"$@\"", "sh", *command]
