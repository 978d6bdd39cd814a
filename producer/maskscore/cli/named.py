"""What a BATCH|JOB argument names."""

from __future__ import annotations

from maskscore.batch import Batch
from maskscore.client import Client
from maskscore.errors import BatchNotFound, JobNotFound

__all__ = ["batch_named"]


def batch_named(client: Client, name: str) -> Batch | None:
    """Return the batch of this id, or ``None`` where the id is a job's.

    Raises :class:`~maskscore.errors.JobNotFound` where it is neither.
    """
    batch = client.batch(name)
    try:
        batch.counts()
    except BatchNotFound:
        try:
            client.status(name)
        except JobNotFound as error:
            raise JobNotFound(
                f"There is no batch and no job {name}: nothing was submitted under this id to this Redis and "
                "namespace, or its time to live (MASKSCORE_RESULT_TTL_S) has passed."
            ) from error
        return None
    return batch
