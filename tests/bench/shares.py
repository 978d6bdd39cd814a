"""Shares of the bare forward: what a worker scores per second, of what the same cores encode and do nothing else.

The forward is measured before and after each load, since the speed of a virtual machine changes within a minute. By the
clock on an idle machine; and by processor time, which other programs leave alone: the forward's per mask divided by all
that the worker process uses per mask.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from bench.stack import cpu_seconds

__all__ = ["Load", "Rates", "add_row", "measure", "table_of_shares"]


@dataclass(frozen=True, slots=True)
class Load:
    """How many masks, and what handles them."""

    masks: int
    call: Callable[[], Any]

    def seconds(self, cpu: Callable[[], float]) -> tuple[float, float]:
        """Return the seconds per mask by the clock and of processor time; ``cpu`` returns the latter so far."""
        started, used = time.perf_counter(), cpu()
        self.call()
        return (time.perf_counter() - started) / self.masks, (cpu() - used) / self.masks


@dataclass
class Rates:
    """Seconds per mask by the clock and of processor time, a pair per round: a load's, and the forward's around it."""

    taken: list[tuple[float, float]] = field(default_factory=list)
    bare: list[tuple[float, float]] = field(default_factory=list)

    @property
    def masks_per_s(self) -> float:
        """The median by the clock."""
        return 1 / statistics.median(wall for wall, _ in self.taken)

    @property
    def masks_per_core_s(self) -> float:
        """The median by processor time."""
        return 1 / statistics.median(cpu for _, cpu in self.taken)

    @property
    def share(self) -> float:
        """The median by the clock."""
        return self._share(0)

    @property
    def cpu_share(self) -> float:
        """The median by processor time."""
        return self._share(1)

    def _share(self, at: int) -> float:
        return statistics.median(bare[at] / taken[at] for bare, taken in zip(self.bare, self.taken, strict=True))


def measure(
    loads: Callable[[], Mapping[str, Load]], bare: Load, worker_pid: int, *, rounds: int
) -> tuple[dict[str, Rates], Rates]:
    """Return the rates of each load of a worker, and the bare forward's; ``loads`` makes new ones for each round."""
    found: dict[str, Rates] = {}
    forward = Rates()
    before = bare.seconds(time.process_time)
    for _ in range(rounds):
        for name, load in loads().items():
            rates = found.setdefault(name, Rates())
            rates.taken.append(load.seconds(lambda: cpu_seconds(worker_pid)))
            after = bare.seconds(time.process_time)
            rates.bare.append(((before[0] + after[0]) / 2, (before[1] + after[1]) / 2))
            forward.taken.append(after)
            forward.bare.append(after)
            before = after
    return found, forward


def table_of_shares(title: str, rounds: int) -> Table:
    """Return a table for :func:`add_row`."""
    table = Table(title=title, caption=f"medians of {rounds} rounds")
    for column in ("load", "masks/s", "share", "masks per core-s", "share by processor time"):
        table.add_column(column, justify="left" if column == "load" else "right")
    return table


def add_row(table: Table, name: str, rates: Rates) -> None:
    """Add a load's medians."""
    table.add_row(
        name,
        f"{rates.masks_per_s:.1f}",
        f"{rates.share:.0%}",
        f"{rates.masks_per_core_s:.1f}",
        f"{rates.cpu_share:.0%}",
    )
