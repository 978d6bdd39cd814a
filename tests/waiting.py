"""Waiting until something has happened."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["until"]


def until(met: Callable[[], object], what: str = "it came about", timeout_s: float = 180) -> None:
    """Wait until it is so; fail after a time that no healthy run takes, however busy the machine is."""
    deadline = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < deadline, f"in {timeout_s:g} s it was not so that {what}"
        time.sleep(0.01)
