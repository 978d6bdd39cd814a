"""Child processes: how they are started, and which signals they and their parent take."""

from __future__ import annotations

from maskscore.processes.signals import (
    deferred_signals,
    enable_interrupts,
)

__all__ = [
    "deferred_signals",
    "enable_interrupts",
]
