"""Checks of a deployment, as ``maskscore doctor`` runs them: each yields a :class:`Finding` with advice.

One ``*_check`` module per subject. Only the worker's own checks, found by entry point, need PyTorch.
"""

from __future__ import annotations

from maskscore.doctor.deployment import Deployment
from maskscore.doctor.examination import examine
from maskscore.doctor.finding import Cause, Finding, Verdict, failed, failed_by, ok, skipped, warning
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
    "skipped",
    "warning",
]
