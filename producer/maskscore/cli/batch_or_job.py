"""The batches and jobs that BATCH|JOB arguments name."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice

import click

from maskscore.client import Batch, Client
from maskscore.errors import BatchNotFound, JobNotFound

__all__ = ["batches_and_jobs", "find_batch", "job_ids_of", "read_job_ids"]

_PAGE = 1000


def batches_and_jobs(client: Client, names: Iterable[str]) -> tuple[list[Batch], list[str]]:
    """Return the batches that some of these ids are of, and the others, which are jobs' or nobody's.

    A thousand ids take one round trip. An id that is a batch's and a job's is taken for the batch's.
    """
    batches: list[Batch] = []
    job_ids: list[str] = []
    rest = iter(names)
    while page := list(islice(rest, _PAGE)):
        known = client._known_batches(page)
        batches += [client.batch(name) for name in page if name in known]
        job_ids += [name for name in page if name not in known]
    return batches, job_ids


def find_batch(client: Client, name: str) -> Batch | None:
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


def job_ids_of(client: Client, names: Iterable[str]) -> Iterator[str]:
    """Return the ids of the jobs of these batches, then those that are jobs themselves.

    Raises :class:`~maskscore.errors.JobNotFound` for a name that is neither's, before the first id.
    """
    batches, job_ids = batches_and_jobs(client, dict.fromkeys(names))
    client.statuses(job_ids)
    return chain(*(batch.job_ids() for batch in batches), job_ids)


def read_job_ids(given: Iterable[str]) -> list[str]:
    """Return the job ids of the arguments; ``-`` stands for those on stdin, one per line."""
    ids: list[str] = []
    for argument in given:
        ids += [line.strip() for line in sys.stdin if line.strip()] if argument == "-" else [argument]
    if not ids:
        raise click.UsageError("no job ids were given, neither as arguments nor on stdin")
    return list(dict.fromkeys(ids))
