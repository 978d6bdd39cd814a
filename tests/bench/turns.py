"""Alternatives measured in turn: A B C A B C, so that what changes on the machine meanwhile meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Measured", "in_turn"]


@dataclass(frozen=True, slots=True)
class Measured:
    """One alternative's seconds: medians by the clock and of this process's processor time, and the latter's rounds."""

    wall_s: float
    cpu_s: float
    cpu_rounds_s: tuple[float, ...]


def in_turn(
    alternatives: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: bool = True
) -> dict[str, Measured]:
    """Call each alternative once unmeasured (``warm_up``), then all of them ``repeats`` times."""
    for call in alternatives.values() if warm_up else ():
        call()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in alternatives}
    for _ in range(repeats):
        for name, call in alternatives.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: Measured(
            statistics.median(wall for wall, _ in taken),
            statistics.median(cpu for _, cpu in taken),
            tuple(cpu for _, cpu in taken),
        )
        for name, taken in times.items()
    }
