"""Job ids from what a job is: the same image, masks and options are the same job, however often they are submitted."""

from __future__ import annotations

import hashlib
from typing import Literal

from maskscore.errors import JobError
from maskscore.schema import Job, MasksRef, Shard
from maskscore.storage import Objects

__all__ = ["digest_of", "with_content_id"]


def digest_of(job: Job | Shard) -> str:
    """Return a SHA-256 (hexadecimal) of what makes a job this one; another document under its id is a conflict.

    Which batch it comes in, whose it is, how urgent it is and how long it may wait are not part of it: a pipeline that
    runs again submits the same jobs.
    """
    return _sha256(job, "batch_id", "priority", "tenant", "expires_in")


def with_content_id(job: Job, objects: Objects, *, of_tenant: bool = False) -> Job:
    """Return the job with an id made of its image's and masks' ETags, its masks, its options and its result's place.

    ETags that the job does not name are asked for, one request each, and noted in the job, so that it is of these very
    objects. An object that is not there, or that the caller may not read, is identified by its URI alone: its job fails
    in the worker, with the reason, and no other job does. With ``of_tenant``, the id is of the job's tenant, too: the
    same work of two tenants is two jobs. Raises :class:`~maskscore.errors.JobError`
    (``storage_unavailable``) when the store does not answer.
    """
    if job.image.etag is None:
        etag = _etag(objects, job.image.uri, "image", job.image.version_id)
        job = job.model_copy(update={"image": job.image.model_copy(update={"etag": etag})})
    if isinstance(job.masks, MasksRef) and job.masks.etag is None:
        etag = _etag(objects, job.masks.uri, "masks", None)
        job = job.model_copy(update={"masks": job.masks.model_copy(update={"etag": etag})})
    without = ("job_id", "batch_id", "priority", "expires_in")
    digest = _sha256(job, *without, *(() if of_tenant else ("tenant",)))
    return job.model_copy(update={"job_id": f"content-{digest[:40]}"})


def _etag(objects: Objects, uri: str, what: Literal["image", "masks"], version_id: str | None) -> str | None:
    try:
        return objects.etag(uri, what=what, version_id=version_id)
    except JobError as error:
        if error.transient:
            raise
        return None


def _sha256(job: Job | Shard, *without: str) -> str:
    return hashlib.sha256(job.model_dump_json(exclude=set(without)).encode()).hexdigest()
