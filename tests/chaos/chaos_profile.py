"""The two profiles of the chaos tests: short for ``make test``, long with the default settings for ``make chaos``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

__all__ = ["PROFILE", "Profile"]


@dataclass(frozen=True, slots=True)
class Profile:
    """Numbers of one profile; ``settings`` are the workers' variables, beside the defaults."""

    name: str
    kills: int
    jobs: int
    lease_s: float
    redis_timeout_s: float
    watchdog_s: float
    cut_s: float
    s3_failing_s: float
    patience_s: float
    """Without any job ending for so long, those that are left count as lost."""
    settings: dict[str, str] = field(default_factory=dict)


SHORT: Final = Profile(
    name="short",
    kills=3,
    jobs=400,
    lease_s=3.0,
    redis_timeout_s=2.0,
    watchdog_s=8.0,
    cut_s=4.0,
    s3_failing_s=8.0,
    patience_s=45.0,
    settings={
        "MASKSCORE_LEASE_S": "3",
        "MASKSCORE_REDIS_TIMEOUT_S": "2",
        "MASKSCORE_WATCHDOG_S": "8",
        "MASKSCORE_GRACE_S": "10",
    },
)

LONG: Final = Profile(
    name="long",
    kills=20,
    jobs=6000,
    lease_s=30.0,
    redis_timeout_s=10.0,
    watchdog_s=120.0,
    cut_s=10.0,
    s3_failing_s=60.0,
    patience_s=150.0,
)

PROFILE: Final = LONG if os.environ.get("MASKSCORE_CHAOS") == "long" else SHORT
