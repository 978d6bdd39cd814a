"""The number of workers for a backlog: a pure function of the observations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from maskscore.errors import SettingsError
from maskscore.text import counted

__all__ = ["BacklogSample", "PoolLimits", "pool_limits", "workers_for", "workers_wanted"]


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Between ``least`` and ``most`` workers, one per ``jobs_per_worker`` jobs; fewer only after ``cool_down_s``."""

    least: int
    most: int
    jobs_per_worker: int
    cool_down_s: float


def pool_limits(least: int, most: int | None, jobs_per_worker: int, cool_down_s: float, *, slots: int) -> PoolLimits:
    """Return the limits of a pool with this number of slots, which is also the default of ``most``.

    Raises :class:`~maskscore.errors.SettingsError` where they do not fit.
    """
    most = slots if most is None else most
    if not slots:
        raise SettingsError("--devices: no device is named. Give cuda:0,cuda:1 or the like, or auto.")
    if not least <= most <= slots:
        raise SettingsError(
            f"--min {least} and --max {most} do not fit {counted(slots, 'device')}: 0 <= min <= max <= devices. "
            "A device that is named twice holds two workers."
        )
    return PoolLimits(least, most, jobs_per_worker, cool_down_s)


@dataclass(frozen=True, slots=True)
class BacklogSample:
    """The jobs that had not ended (waiting, running and delayed) at a moment; ``None``: Redis did not answer.

    ``at`` is in seconds of any clock that never goes back.
    """

    at: float
    jobs: int | None


def workers_for(jobs: int, limits: PoolLimits) -> int:
    """Return ``ceil(jobs / jobs_per_worker)`` within the limits: the formula of KEDA and of the HPA."""
    return min(limits.most, max(limits.least, math.ceil(jobs / limits.jobs_per_worker)))


def workers_wanted(seen: Sequence[BacklogSample], present: int, limits: PoolLimits) -> int:
    """Return how many workers there should be, where ``present`` were wanted until now.

    More, as soon as the latest observation asks for them. Fewer, only when every observation of the whole cool-down
    asked for fewer: then as many as the busiest of them asked for. While Redis does not answer, or did not within the
    cool-down, nobody knows that a worker is idle, and none is ended. ``seen`` is in the order of time.
    """
    present = min(limits.most, max(limits.least, present))
    if not seen or seen[-1].jobs is None:
        return present
    target = workers_for(seen[-1].jobs, limits)
    if target >= present:
        return target
    begin = seen[-1].at - limits.cool_down_s
    if seen[0].at > begin:
        return present
    recent = [observation.jobs for observation in seen if observation.at >= begin]
    return min(present, max(present if jobs is None else workers_for(jobs, limits) for jobs in recent))
