"""Sizing: what scoring so many images takes in workers, hours, bytes, memory and money.

Arithmetic on measured figures: the rate of one worker is the benchmark's (``make bench``), the memory of a job is
:mod:`maskscore.sizing.measure`'s. Every figure that is assumed is said beside the result.
"""

from __future__ import annotations

from maskscore.sizing.benchmark_rates import read_rate
from maskscore.sizing.plan import Means, Plan, Work, make_plan

__all__ = ["Means", "Plan", "Work", "make_plan", "read_rate"]
