"""The lanes of the queue: one list of messages in Redis each."""

from __future__ import annotations

from typing import Final, Literal, get_args

__all__ = ["LANES", "Lane"]

Lane = Literal["high.again", "high", "normal.again", "normal", "low.again", "low"]
"""The part of the queue that a job's message is in: its priority, and whether it was queued before."""
LANES: Final[tuple[Lane, ...]] = get_args(Lane)
"""All of them, in the order in which they are served."""
