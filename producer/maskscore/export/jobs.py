"""Which jobs an export is of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from maskscore.client import Batch

__all__ = ["job_ids_of"]


def job_ids_of(jobs: Batch | Iterable[str]) -> Iterator[str]:
    """Return the ids of a batch's jobs, in the order of submission, or the given ones."""
    return jobs.job_ids() if isinstance(jobs, Batch) else iter(jobs)
