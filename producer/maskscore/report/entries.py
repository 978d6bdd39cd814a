"""What the report shows of a job: its result, and as much of its image and masks as can still be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from maskscore.client import Client
from maskscore.errors import JobError, JobNotFound
from maskscore.formats import MasksDocumentError, UnreadableMask, read_masks
from maskscore.job import Job, Mask, MasksRef
from maskscore.objects import Objects
from maskscore.result import JobResult

__all__ = ["ReportEntry", "collect"]

_MAX_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class ReportEntry:
    """One job. ``image`` is the file's bytes, ``masks`` are in the job's order; ``missing`` says what is not there."""

    job: Job | None
    result: JobResult
    image: bytes | None
    masks: list[Mask | UnreadableMask] = field(default_factory=list)
    missing: str | None = None


def collect(client: Client, job_ids: Iterable[str]) -> list[ReportEntry]:
    """Read what the report needs of ended jobs, with this process's own access to files and objects.

    An image or masks that cannot be read any more leave the scores to show. Raises as
    :meth:`maskscore.Client.get` does.
    """
    objects = Objects(buckets=None, result_buckets=(), file_roots=[Path("/")])
    try:
        return [_entry(client, job_id, objects) for job_id in job_ids]
    finally:
        objects.close()


def _entry(client: Client, job_id: str, objects: Objects) -> ReportEntry:
    result = client.get(job_id)
    try:
        job = client.job(job_id)
    except (JobNotFound, JobError):
        return ReportEntry(None, result, None, missing="The job's document is gone, and with it where its masks are.")
    if result.image is None:
        return ReportEntry(job, result, None)
    try:
        image = objects.read(job.image.uri, what="image", max_bytes=_MAX_BYTES, etag=result.image.etag).data
    except JobError as error:
        return ReportEntry(job, result, None, missing=f"The image cannot be read any more. {error}")
    try:
        return ReportEntry(job, result, image, _masks(job, objects, (result.image.height, result.image.width)))
    except (JobError, MasksDocumentError) as error:
        return ReportEntry(job, result, image, missing=f"The masks cannot be read any more. {error}")


def _masks(job: Job, objects: Objects, size: tuple[int, int]) -> list[Mask | UnreadableMask]:
    if not isinstance(job.masks, MasksRef):
        return list(job.masks)
    data = objects.read(job.masks.uri, what="masks", max_bytes=_MAX_BYTES, etag=job.masks.etag).data
    return read_masks(
        data,
        image_name=PurePosixPath(job.image.uri).name,
        image_id=job.masks.image_id,
        format=job.masks.format,
        size=size,
    )
