"""The batches and jobs that BATCH|JOB arguments name."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

import click

from maskscore.cli.optional_dependencies import check_installed
from maskscore.client import Batch, Client, are_shards, committed_shards
from maskscore.errors import BatchNotFound, JobNotFound, ResultUnavailable
from maskscore.results import PartsPlace, is_parts_folder
from maskscore.schema import JobResult

__all__ = ["PartsNamed", "batches_and_jobs", "find_batch", "find_parts", "job_ids_of", "parts_named", "read_job_ids"]

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class PartsNamed:
    """Parts that an argument names: their place, and results of the shards of it that have not succeeded."""

    place: PartsPlace
    without_result: list[JobResult] = field(default_factory=list)

    @property
    def codes(self) -> Counter[str]:
        """How many shards have no result, by what counts say of them."""
        return Counter(f"shard_{one.error.code if one.error else 'not_ended'}" for one in self.without_result)


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


def find_parts(client: Client, name: str) -> PartsNamed | None:
    """Return the parts of a folder, an ``s3://`` prefix, a batch of shards, or a shard; ``None`` for other names.

    Redis is not asked for a folder. Raises :class:`~maskscore.errors.JobNotFound` where the name is nobody's, and
    :class:`~maskscore.errors.ResultUnavailable` for shards without a part.
    """
    if is_parts_folder(name):
        return PartsNamed(name)
    batch = find_batch(client, name)
    if not are_shards(client, [name] if batch is None else batch.job_ids()):
        return None
    found = committed_shards(client, [name] if batch is None else batch.job_ids())
    if not found.outcomes:
        states = Counter(one.error.code if one.error else str(one.state) for one in found.without_result)
        listed = ", ".join(f"{state} {count:,}" for state, count in states.items())
        raise ResultUnavailable(f"The shards of {name} have no part yet ({listed}).")
    return PartsNamed(found.outcomes, found.without_result)


def parts_named(client: Client, names: Iterable[str]) -> dict[str, PartsNamed]:
    """Return the parts of those names that mean parts, as :func:`find_parts` finds them."""
    found = {name: find_parts(client, name) for name in dict.fromkeys(names)}
    parts = {name: one for name, one in found.items() if one is not None}
    if parts:
        for module in ("pyarrow", "duckdb"):
            check_installed(module, "export")
    return parts


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
