"""Computes a plan from a workload and a capacity; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from maskscore.sizing import job_bytes

__all__ = ["Capacity", "Plan", "Workload", "make_plan"]


@dataclass(frozen=True, slots=True)
class Workload:
    """The images and masks to score, one job per image.

    ``image_bytes`` is the size of an image's object; ``mask_bytes`` of each mask in the masks' object, where the masks
    are not ``inline`` in the job. ``results_in_redis``: else each result becomes an object.
    """

    images: int
    masks_per_image: float
    image_bytes: int
    mask_bytes: int
    inline: bool
    results_in_redis: bool


@dataclass(frozen=True, slots=True)
class Capacity:
    """The workers, and the time or number of them.

    ``masks_per_s`` is the measured rate of one worker, of which the share ``utilization`` is reached on average. Either
    ``deadline_s`` or ``workers`` is given. At most ``queue_limit`` jobs are queued, and results are kept for
    ``kept_s`` seconds. ``cost_per_hour`` is that of one worker, in any currency.
    """

    masks_per_s: float
    utilization: float
    deadline_s: float | None
    workers: int | None
    queue_limit: int
    kept_s: float
    cost_per_hour: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The resources that a workload needs.

    Bytes are bytes, times are hours, rates are per second; ``cost`` is in the currency given.
    """

    images: int
    masks: int
    workers: int
    hours: float
    worker_hours: float
    masks_per_s: float
    images_per_s: float
    read_bytes: int
    read_bytes_per_s: float
    read_bytes_per_s_per_worker: float
    reads_per_s: float
    written_bytes: int
    written_bytes_per_s: float
    redis_queued_bytes: int
    redis_ended_bytes: int
    cost: float | None

    @property
    def redis_bytes(self) -> int:
        """The most that Redis holds: a full queue, and all that has ended and is kept."""
        return self.redis_queued_bytes + self.redis_ended_bytes


def make_plan(work: Workload, capacity: Capacity) -> Plan:
    """Return what the work takes with this capacity."""
    masks = math.ceil(work.images * work.masks_per_image)
    rate = capacity.masks_per_s * capacity.utilization
    if capacity.workers is not None:
        workers = capacity.workers
    elif capacity.deadline_s is not None:
        workers = max(1, math.ceil(masks / (rate * capacity.deadline_s)))
    else:
        raise ValueError("either deadline_s or workers is needed")
    seconds = masks / (rate * workers)
    read_bytes = work.images * work.image_bytes + (0 if work.inline else masks * work.mask_bytes)
    written = 0 if work.results_in_redis else work.images * job_bytes.OBJECT_JOB + masks * job_bytes.OBJECT_MASK
    inline = work.masks_per_image * job_bytes.MASK_IN_REDIS if work.inline else 0
    ended = (
        job_bytes.ENDED_JOB + inline + (work.masks_per_image * job_bytes.RESULT_MASK if work.results_in_redis else 0)
    )
    kept = work.images * min(1.0, capacity.kept_s / seconds) if seconds else work.images
    return Plan(
        images=work.images,
        masks=masks,
        workers=workers,
        hours=seconds / 3600,
        worker_hours=workers * seconds / 3600,
        masks_per_s=rate * workers,
        images_per_s=_per_s(work.images, seconds),
        read_bytes=read_bytes,
        read_bytes_per_s=_per_s(read_bytes, seconds),
        read_bytes_per_s_per_worker=_per_s(read_bytes, seconds) / workers,
        reads_per_s=_per_s(work.images * (1 if work.inline else 2), seconds),
        written_bytes=written,
        written_bytes_per_s=_per_s(written, seconds),
        redis_queued_bytes=math.ceil(min(work.images, capacity.queue_limit) * (job_bytes.QUEUED_JOB + inline)),
        redis_ended_bytes=math.ceil(kept * ended),
        cost=None if capacity.cost_per_hour is None else capacity.cost_per_hour * workers * seconds / 3600,
    )


def _per_s(amount: float, seconds: float) -> float:
    return amount / seconds if seconds else 0.0
