"""A job's objects, read from the object store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from maskscore.schema import Job, MasksRef
from maskscore.settings import WorkerSettings
from maskscore.storage import FetchedObject, Objects
from maskscore_worker.inputs.cancellation import run_with_cancellation
from maskscore_worker.inputs.job_masks import check_count

__all__ = ["Fetched", "fetch"]


@dataclass(frozen=True, slots=True)
class Fetched:
    """The job's image, and its masks' bytes; ``None`` where the masks are in the job itself."""

    image: FetchedObject
    masks: bytes | None


def fetch(job: Job, objects: Objects, settings: WorkerSettings, check: Callable[[], None]) -> Fetched:
    """Read the objects that a job names; ``check`` may raise to give up a store that is slow.

    Raises :class:`~maskscore.errors.JobError` as :meth:`maskscore.storage.Objects.read` does, and ``too_many_masks``.
    """
    masks = None
    reference = job.masks
    if isinstance(reference, MasksRef):
        masks = run_with_cancellation(
            lambda: objects.read(reference.uri, what="masks", max_bytes=settings.max_masks_bytes, etag=reference.etag),
            check,
        ).data
    else:
        check_count(len(reference), "masks", settings)
    check()
    image = run_with_cancellation(
        lambda: objects.read(
            job.image.uri,
            what="image",
            max_bytes=settings.max_image_bytes,
            etag=job.image.etag,
            version_id=job.image.version_id,
        ),
        check,
    )
    return Fetched(image, masks)
