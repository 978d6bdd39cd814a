"""The worker's part on this machine, which the worker half knows how to examine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

from maskscore.doctor.deployment import Deployment
from maskscore.doctor.finding import Finding
from maskscore.worker_entry_points import worker_part

__all__ = ["examination", "why_no_worker"]


def why_no_worker(deployment: Deployment) -> str | None:
    """Return why this machine runs no worker; ``None`` where it can be one."""
    if find_spec("torch") is None:
        return "PyTorch is not installed here"
    if deployment.settings.weights is None:
        return "MASKSCORE_WEIGHTS is unset"
    return None


def examination(name: str) -> Callable[[Deployment], Iterator[Finding]]:
    """Return the examination of the ``device``, the ``prompts`` or the ``weights``; it is loaded when it is called."""

    def examine(deployment: Deployment) -> Iterator[Finding]:
        found: Iterator[Finding] = worker_part("examinations")[name](deployment)
        return found

    return examine
