"""A day's jobs: a steady trickle that follows the sun, and batches that somebody submits at once."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

__all__ = ["DAY_S", "Arrival", "bursty_day"]

DAY_S = 86_400.0
_HOUR_S = 3600.0
# When, how large a share of the day's jobs, and for how long it is being submitted.
_BATCHES = ((2.0, 0.35, 900.0), (9.5, 0.10, 300.0), (14.0, 0.20, 600.0), (14.75, 0.10, 300.0), (19.5, 0.05, 60.0))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job: when it is submitted, in seconds from midnight, and its masks."""

    at: float
    masks: int


def bursty_day(jobs: int, masks_per_job: float, *, seed: int = 1) -> list[Arrival]:
    """Return about ``jobs`` jobs in the order of time: four fifths in five batches, the rest from 6 to 22 o'clock.

    The number of masks varies as photos do: log-normal, with a mean of ``masks_per_job`` and a standard deviation of
    nearly the same size. The same seed gives the same day.
    """
    dice = random.Random(seed)
    moments = []
    for hour, share, length_s in _BATCHES:
        moments += [hour * _HOUR_S + dice.random() * length_s for _ in range(round(jobs * share))]
    while len(moments) < jobs:
        moment = dice.random() * DAY_S
        if dice.random() < _daylight(moment):
            moments.append(moment)
    sigma = 0.8
    mu = math.log(masks_per_job) - sigma**2 / 2
    return [Arrival(moment, max(1, round(dice.lognormvariate(mu, sigma)))) for moment in sorted(moments)]


def _daylight(moment: float) -> float:
    return max(0.0, math.sin(math.pi * (moment / _HOUR_S - 6) / 16)) if 6 <= moment / _HOUR_S <= 22 else 0.0
