"""Shards of tar files against one job per image, and what one process hands to a device."""

from __future__ import annotations

from rich.console import Console

from bench import feeding
from bench.figures import Figures

__all__ = ["run"]


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure all of it."""
    feeding.run(console, figures, full=full)
