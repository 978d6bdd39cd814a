"""The shards among jobs: which parts they have committed, and which of them have no result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from maskscore.client.job_client import JobClient
from maskscore.client.polling import pages
from maskscore.errors import InvalidDocumentError
from maskscore.schema import JobResult, ShardCounts, ShardOutcome
from maskscore.storage import load_result_or_error

__all__ = ["CommittedShards", "are_shards", "committed_shards"]


@dataclass(slots=True)
class CommittedShards:
    """The ``outcomes`` of shards that have parts, also of those that go on or failed.

    ``without_result`` has a result of each shard that has not succeeded: its state, and an error where it has ended.
    """

    outcomes: list[ShardOutcome] = field(default_factory=list)
    without_result: list[JobResult] = field(default_factory=list)


def are_shards(client: JobClient, job_ids: Iterable[str]) -> bool:
    """Say whether the first of the jobs is a shard; a job whose record is gone is none.

    Raises :class:`~maskscore.errors.ServiceUnavailable`.
    """
    return any(client._is_shard(job_id) for job_id in islice(job_ids, 1))


def committed_shards(client: JobClient, job_ids: Iterable[str]) -> CommittedShards:
    """Return what the shards of these ids have committed.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where one is the job of an image,
    :class:`~maskscore.errors.ResultUnavailable` where a result cannot be read, and
    :class:`~maskscore.errors.JobNotFound` for a record that is gone.
    """
    found = CommittedShards()
    for page in pages(job_ids):
        statuses = client.statuses(page)
        for job_id, status, record in zip(page, statuses, client.records(page), strict=True):
            result = JobResult(job_id=job_id, batch_id=status.batch_id, state=status.state)
            if record is not None and status.state.ended:
                result = load_result_or_error(record, client.objects)
            if result.shard is not None:
                found.outcomes.append(result.shard)
                continue
            if not client._is_shard(job_id):
                raise InvalidDocumentError(
                    f"Job {job_id} is that of an image, among shards: name jobs of images and shards one after the "
                    "other."
                )
            found.without_result.append(result)
            if status.progress is not None and status.progress.parts:
                shard = client.shard(job_id)
                counts = ShardCounts(images=status.progress.images, masks=status.progress.masks)
                outcome = {"name": shard.name, "output_uri": shard.output_uri, "parts": status.progress.parts}
                found.outcomes.append(ShardOutcome(**outcome, counts=counts))
    return found
