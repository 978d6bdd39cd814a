"""Child processes that end with their parent, and signal handling around them."""

from __future__ import annotations

from maskscore.processes.signals import (
    deferred_signals,
    enable_interrupts,
)

__all__ = [
    "deferred_signals",
    "enable_interrupts",
]
