"""Bytes per job, per shard and per result, as ``python -m maskscore.sizing.measure`` measured them with Redis 7.0.

Repeated, the figures vary by up to a tenth with the number of jobs: Redis doubles its tables as they fill. Valkey 9
takes up to a quarter less.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ENDED_JOB",
    "ENDED_SHARD",
    "MASK_IN_REDIS",
    "OBJECT_JOB",
    "OBJECT_MASK",
    "PART",
    "PART_IMAGE",
    "PART_MASK",
    "QUEUED_JOB",
    "QUEUED_SHARD",
    "RESULT_MASK",
]

QUEUED_JOB: Final = 840
"""In Redis, per queued job of a batch: record, place in the ledger, message; its masks in an object."""
MASK_IN_REDIS: Final = 240
"""In Redis, per mask that is inline in the job, queued or ended; of some 350 characters of COCO RLE."""
ENDED_JOB: Final = 850
"""In Redis, per ended job until its time to live is over, but for its scores."""
RESULT_MASK: Final = 126
"""In Redis, per scored mask of a result that is kept there."""
OBJECT_JOB: Final = 1010
"""In object storage, per result: JSON."""
OBJECT_MASK: Final = 395
"""In object storage, per scored mask of a result."""
QUEUED_SHARD: Final = 870
"""In Redis, per queued shard of a batch."""
ENDED_SHARD: Final = 2000
"""In Redis, per ended shard until its time to live is over; it keeps its document and its result."""
PART: Final = 22_000
"""In object storage, per part (two files), but for its rows."""
PART_IMAGE: Final = 16
"""In object storage, per row of ``images`` in a part."""
PART_MASK: Final = 250
"""In object storage, per row of ``masks`` in a part; with COCO RLE of some 350 characters."""
