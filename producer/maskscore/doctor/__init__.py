"""The doctor: examines a deployment and says what to do. ``maskscore doctor`` prints what it finds.

Each module looks at one concern and yields a :class:`Finding` per thing; none of them needs PyTorch but ``worker``,
which imports it when it is asked.
"""

from __future__ import annotations

from maskscore.doctor.deployment import (
    Deployment,
)
from maskscore.doctor.examination import examine
from maskscore.doctor.finding import (
    Cause,
    Finding,
    Verdict,
    failed,
    failed_by,
    ok,
    warning,
)
from maskscore.doctor.settings_check import read_settings

__all__ = [
    "Cause",
    "Deployment",
    "Finding",
    "Verdict",
    "examine",
    "failed",
    "failed_by",
    "ok",
    "read_settings",
    "warning",
]
