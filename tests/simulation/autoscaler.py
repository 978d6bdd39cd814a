"""How KEDA and the Horizontal Pod Autoscaler choose the number of pods, as their documentation and code say.

KEDA's operator polls its trigger and moves a workload between no pod and the first ones
(https://keda.sh/docs/latest/reference/scaledobject-spec/). From one pod on the HPA decides, with
``desired = ceil(metric / target)`` for a metric of type ``AverageValue``, a tolerance, a limit to each step upwards and
a stabilisation window downwards (https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Autoscaler", "Scaling", "hpa_desired"]

SYNC_S = 15.0
"""The HPA's period."""
TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Scaling:
    """A ScaledObject: the metric is the jobs that have not ended, ``target`` of them per pod.

    ``polling_s``: KEDA's ``pollingInterval``. ``cool_down_s``: its ``cooldownPeriod``, for the step to zero alone.
    ``stabilisation_s``: the HPA's ``scaleDown.stabilizationWindowSeconds``. Upwards, at most the larger of ``up_pods``
    and ``up_share`` of the pods are added in ``up_period_s``; downwards, at most ``down_share`` are removed in
    ``down_period_s``. The defaults are those of ``deploy/overlays/keda``.
    """

    name: str
    least: int
    most: int
    target: float
    polling_s: float = 15.0
    cool_down_s: float = 300.0
    stabilisation_s: float = 300.0
    up_pods: int = 4
    up_share: float = 1.0
    up_period_s: float = 30.0
    down_share: float = 0.5
    down_period_s: float = 150.0


def hpa_desired(metric: float, target: float, pods: int) -> int:
    """Return the HPA's recommendation for ``pods`` (one or more), before limits and stabilisation."""
    if abs(metric / (target * pods) - 1) <= TOLERANCE:
        return pods
    return math.ceil(metric / target)


class Autoscaler:
    """The state of one scaled workload. Moments are in seconds and never go back."""

    def __init__(self, scaling: Scaling) -> None:
        self._scaling = scaling
        self._active_at = 0.0
        self._recommended: list[tuple[float, int]] = []
        self._changes: list[tuple[float, int]] = []

    def poll(self, now: float, metric: float, pods: int) -> int:
        """Return how many pods KEDA's operator wants after a poll; it only knows none, and the first ones."""
        scaling = self._scaling
        if metric > 0:
            self._active_at = now
            return pods or max(1, scaling.least)
        if pods and scaling.least == 0 and now - self._active_at >= scaling.cool_down_s:
            return 0
        return max(pods, scaling.least)

    def sync(self, now: float, metric: float, pods: int) -> int:
        """Return how many pods the HPA wants; it does nothing while there is none."""
        if pods == 0:
            return 0
        scaling = self._scaling
        desired = hpa_desired(metric, scaling.target, pods)
        begin = now - scaling.stabilisation_s
        self._recommended = [(moment, number) for moment, number in self._recommended if moment > begin]
        self._recommended.append((now, desired))
        if desired < pods:
            desired = min(pods, max(number for _, number in self._recommended))
        desired = max(1, scaling.least, min(desired, scaling.most))
        if desired > pods:
            desired = min(desired, max(pods, self._upper_limit(now, pods)))
        elif desired < pods:
            desired = max(desired, min(pods, self._lower_limit(now, pods)))
        if desired != pods:
            self._changes.append((now, desired - pods))
        return desired

    def _upper_limit(self, now: float, pods: int) -> int:
        begun_with = pods - self._changed(now - self._scaling.up_period_s)
        return max(begun_with + self._scaling.up_pods, math.ceil(begun_with * (1 + self._scaling.up_share)))

    def _lower_limit(self, now: float, pods: int) -> int:
        begun_with = pods - self._changed(now - self._scaling.down_period_s)
        return int(begun_with * (1 - self._scaling.down_share))

    def _changed(self, since: float) -> int:
        """By how many pods the HPA has changed the workload since then, in all."""
        longest = max(self._scaling.up_period_s, self._scaling.down_period_s)
        if self._changes:
            self._changes = [change for change in self._changes if change[0] > self._changes[-1][0] - 2 * longest]
        return sum(change for moment, change in self._changes if moment > since)
