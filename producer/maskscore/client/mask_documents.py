"""A job's masks as they can be read now: from its document, or from the object that it points to."""

from __future__ import annotations

from maskscore.formats import Orphans, UnreadableMask, read_masks
from maskscore.schema import ImageInfo, Job, Mask, MasksRef
from maskscore.storage import Objects, object_path

__all__ = ["read_masks_document", "scored_masks"]

_MAX_BYTES = 1 << 28


def read_masks_document(job: Job, objects: Objects) -> bytes | None:
    """Return the object that holds the job's masks; ``None`` where they are inline.

    Raises :class:`~maskscore.errors.JobError` when it cannot be read, or is another one than was scored.
    """
    if not isinstance(job.masks, MasksRef):
        return None
    return objects.read(job.masks.uri, what="masks", max_bytes=_MAX_BYTES, etag=job.masks.etag).data


def scored_masks(job: Job, document: bytes | None, image: ImageInfo | None) -> list[Mask | UnreadableMask]:
    """Return the masks in the job's order, as the worker read them.

    ``document`` is :func:`read_masks_document`'s, ``image`` the result's, whose size normalised polygons need.

    Raises :class:`~maskscore.formats.MasksDocumentError`.
    """
    if document is None or not isinstance(job.masks, MasksRef):
        return [] if isinstance(job.masks, MasksRef) else list(job.masks)
    return read_masks(
        document,
        image_name=object_path(job.image.uri),
        file_name=job.masks.uri,
        image_id=job.masks.image_id,
        format=job.masks.format,
        size=(image.height, image.width) if image is not None else None,
        # They were reported when the masks were scored.
        orphans=Orphans(),
    )
