"""Child processes that end with their parent, and signal handling around them."""

from __future__ import annotations

from maskscore.processes.parent_death import child_command
from maskscore.processes.signals import deferred_signals, enable_interrupts

__all__ = ["child_command", "deferred_signals", "enable_interrupts"]
