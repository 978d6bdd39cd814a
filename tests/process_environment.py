"""The environment of a process: its variables (where Redis and S3 are), and the signals that its parent ignores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest import mock

import boto3

__all__ = ["ignoring_signal", "patched_environment"]


@contextmanager
def patched_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables in ``os.environ``; at the end, restore all of it, also what the block has changed."""
    try:
        with mock.patch.dict(os.environ, variables):
            # boto3 keeps the credentials that it has found once.
            boto3.setup_default_session()
            yield
    finally:
        boto3.setup_default_session()


def ignoring_signal(signal_name: str, *command: str) -> list[str]:
    """Return a command that runs ``command`` as a parent would that ignores this signal (``INT``, ``HUP``)."""
    return ["sh", "-c", f"trap '' {signal_name}; exec \"$@\"", "sh", *command]
