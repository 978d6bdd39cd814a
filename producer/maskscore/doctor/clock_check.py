"""Checks this machine's clock: S3 refuses signatures that are 15 minutes off, and results carry times."""

from __future__ import annotations

import time
from collections.abc import Iterator

from maskscore.doctor.deployment import Deployment
from maskscore.doctor.finding import Cause, Finding, failed, ok, warning

__all__ = ["examine_clock", "judge_clock"]

_WARNING_S = 5.0
_FAILED_S = 300.0


def examine_clock(deployment: Deployment) -> Iterator[Finding]:
    """Compare with Redis's clock."""
    before = time.time()
    seconds, micros = deployment.redis.time()
    middle = (before + time.time()) / 2
    yield judge_clock("clock", "Redis", seconds + micros / 1e6 - middle, resolution_s=0.0)


def judge_clock(name: str, whose: str, ahead_s: float, *, resolution_s: float) -> Finding:
    """Judge how far another clock is ahead of ours, in seconds; it is known to ``resolution_s``."""
    off = max(0.0, abs(ahead_s) - resolution_s)
    if off <= _WARNING_S:
        known = f"{max(off, resolution_s, 0.001):.2g} s"
        return ok(name, f"This machine and {whose} agree to {known}.")
    sentence = f"This machine's clock is {off:,.0f} s {'behind' if ahead_s > 0 else 'ahead of'} {whose}'s."
    advice = "Let both machines keep time by NTP. S3 refuses requests signed 15 minutes off."
    return failed(name, Cause.DEPLOYMENT, sentence, advice) if off > _FAILED_S else warning(name, sentence, advice)
