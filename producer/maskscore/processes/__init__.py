"""Child processes: how they are started, and which signals they and their parent take."""

from __future__ import annotations

from maskscore.processes.signals import (
    hear_interrupts,
    signals_held,
)

__all__ = [
    "hear_interrupts",
    "signals_held",
]
