"""Capacity planning: the workers, hours, bytes, memory and cost of scoring a number of images.

Arithmetic on measured figures: the rate of one worker is the benchmark's (``make bench``), the memory of a job is
:mod:`maskscore.sizing.measure`'s. Every figure that is assumed is said beside the result.
"""

from __future__ import annotations

from maskscore.sizing.benchmark_rates import read_rate
from maskscore.sizing.plan import Capacity, Plan, Sharding, Workload, make_plan

__all__ = ["Capacity", "Plan", "Sharding", "Workload", "make_plan", "read_rate"]
