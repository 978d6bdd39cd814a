"""Computes a plan from a workload and a capacity; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from maskscore.schema import Shard
from maskscore.shards import RANGE_BYTES
from maskscore.sizing import job_bytes

__all__ = ["Capacity", "Plan", "Sharding", "Workload", "make_plan"]


_TAR_BYTES: Final = 1536
"""Of a tar, per image: the headers of its two members (POSIX.1-2017, pax), and what fills up their last blocks."""
_LINE_BYTES: Final = 150
"""Of a list of pairs, per image, but for inline masks."""


@dataclass(frozen=True, slots=True)
class Sharding:
    """The shards that images are scored in: ``tars``, or lists of pairs, of ``images`` images each.

    A part ends after ``part_images`` images, or with ``part_masks`` masks.
    """

    tars: bool
    images: int
    part_images: int = Shard.model_fields["part_images"].default
    part_masks: int = Shard.model_fields["part_masks"].default


@dataclass(frozen=True, slots=True)
class Workload:
    """The images and masks to score, one job per image, or in ``shards``.

    ``image_bytes`` is the size of an image's object; ``mask_bytes`` of each mask in the masks' object, where the masks
    are not ``inline`` in the job or list. ``results_in_redis``: else each result becomes an object. Shards have parts
    instead, and the masks of tars are members.
    """

    images: int
    masks_per_image: float
    image_bytes: int
    mask_bytes: int
    inline: bool
    results_in_redis: bool
    shards: Sharding | None = None


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

    Bytes are bytes, times are hours, rates are per second; ``cost`` is in the currency given. ``shards``, ``parts``
    (two objects each), ``gets`` and ``puts`` are requests to object storage in all, and numbers of shards alone.
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
    shards: int | None = None
    parts: int | None = None
    gets: int | None = None
    puts: int | None = None

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
    amounts = _of_jobs(work, masks) if work.shards is None else _of_shards(work, work.shards, masks)
    kept = amounts.jobs * min(1.0, capacity.kept_s / seconds) if seconds else amounts.jobs
    return Plan(
        images=work.images,
        masks=masks,
        workers=workers,
        hours=seconds / 3600,
        worker_hours=workers * seconds / 3600,
        masks_per_s=rate * workers,
        images_per_s=_per_s(work.images, seconds),
        read_bytes=amounts.read_bytes,
        read_bytes_per_s=_per_s(amounts.read_bytes, seconds),
        read_bytes_per_s_per_worker=_per_s(amounts.read_bytes, seconds) / workers,
        reads_per_s=_per_s(amounts.gets, seconds),
        written_bytes=amounts.written_bytes,
        written_bytes_per_s=_per_s(amounts.written_bytes, seconds),
        redis_queued_bytes=math.ceil(min(amounts.jobs, capacity.queue_limit) * amounts.queued_bytes),
        redis_ended_bytes=math.ceil(kept * amounts.ended_bytes),
        cost=None if capacity.cost_per_hour is None else capacity.cost_per_hour * workers * seconds / 3600,
        **({} if work.shards is None else amounts.of_shards()),
    )


@dataclass(frozen=True, slots=True)
class _Amounts:
    """What goes through object storage and Redis; bytes in Redis are per job or shard."""

    jobs: int
    read_bytes: int
    written_bytes: int
    gets: int
    puts: int
    queued_bytes: float
    ended_bytes: float
    parts: int = 0

    def of_shards(self) -> dict[str, int]:
        return {"shards": self.jobs, "parts": self.parts, "gets": self.gets, "puts": self.puts}


def _of_jobs(work: Workload, masks: int) -> _Amounts:
    inline = work.masks_per_image * job_bytes.MASK_IN_REDIS if work.inline else 0
    result = work.masks_per_image * job_bytes.RESULT_MASK if work.results_in_redis else 0
    return _Amounts(
        jobs=work.images,
        read_bytes=work.images * work.image_bytes + (0 if work.inline else masks * work.mask_bytes),
        written_bytes=(
            0 if work.results_in_redis else work.images * job_bytes.OBJECT_JOB + masks * job_bytes.OBJECT_MASK
        ),
        gets=work.images * (1 if work.inline else 2),
        puts=0 if work.results_in_redis else work.images,
        queued_bytes=job_bytes.QUEUED_JOB + inline,
        ended_bytes=job_bytes.ENDED_JOB + inline + result,
    )


def _of_shards(work: Workload, shards: Sharding, masks: int) -> _Amounts:
    count = math.ceil(work.images / shards.images)
    per_part = min(shards.part_images, math.ceil(shards.part_masks / work.masks_per_image))
    parts = count * math.ceil(min(shards.images, work.images) / per_part)
    content = work.images * work.image_bytes + masks * work.mask_bytes
    if shards.tars:
        read = content + work.images * _TAR_BYTES
        gets = count + max(count, math.ceil(read / RANGE_BYTES))
    else:
        lists = work.images * _LINE_BYTES + (masks * work.mask_bytes if work.inline else 0)
        read = content + work.images * _LINE_BYTES
        gets = work.images * (1 if work.inline else 2) + count + max(count, math.ceil(lists / RANGE_BYTES))
    return _Amounts(
        jobs=count,
        read_bytes=read,
        written_bytes=parts * job_bytes.PART + work.images * job_bytes.PART_IMAGE + masks * job_bytes.PART_MASK,
        gets=gets,
        puts=2 * parts + (0 if shards.tars else count),
        queued_bytes=job_bytes.QUEUED_SHARD,
        ended_bytes=job_bytes.ENDED_SHARD,
        parts=parts,
    )


def _per_s(amount: float, seconds: float) -> float:
    return amount / seconds if seconds else 0.0
