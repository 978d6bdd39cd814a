"""Sizing: what scoring so many images takes in workers, hours, bytes, memory and money.

Arithmetic on measured figures: the rate of one worker is the benchmark's (``make bench``), the memory of a job is
:mod:`maskscore.sizing.measure`'s. Every figure that is assumed is said beside the result.
"""

from __future__ import annotations

from maskscore.sizing.estimate import Means, Plan, Work, make_plan
from maskscore.sizing.rates import read_rate

__all__ = ["Means", "Plan", "Work", "make_plan", "read_rate"]
