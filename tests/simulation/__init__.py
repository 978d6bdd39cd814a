"""A day of a cluster, simulated: what a scaler's settings do to the backlog and to the bill.

    day (arrivals) ──▶ world (queue, pods, events) ◀──▶ autoscaler (KEDA's and the HPA's formula, pure)
                          ╰──▶ table and chart

For what one machine cannot try out. The scaler's numbers are those of ``deploy/``'s KEDA overlay; a worker is a server
that takes jobs in their order, at a measured rate, some seconds after it was asked for.
"""

from __future__ import annotations

from simulation.autoscaler import Autoscaler, Scaling, hpa_desired
from simulation.chart import draw
from simulation.day import Arrival, bursty_day
from simulation.world import Outcome, simulate

__all__ = [
    "Arrival",
    "Autoscaler",
    "Outcome",
    "Scaling",
    "bursty_day",
    "draw",
    "hpa_desired",
    "simulate",
]
