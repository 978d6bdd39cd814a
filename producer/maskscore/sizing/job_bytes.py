"""Bytes per job and per result, as ``python -m maskscore.sizing.measure`` measured them with Redis 7.0.

Repeated, the figures vary by up to a tenth with the number of jobs: Redis doubles its tables as they fill. Valkey 9
takes up to a quarter less.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ENDED_JOB",
    "MASK_IN_REDIS",
    "OBJECT_JOB",
    "OBJECT_MASK",
    "QUEUED_JOB",
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
