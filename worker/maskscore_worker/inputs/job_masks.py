"""A job's masks, from the job itself or from a fetched masks document, and the limit on their number."""

from __future__ import annotations

from dataclasses import dataclass

from maskscore.errors import FailureCode, JobError, WarningCode
from maskscore.formats import MasksDocumentError, Orphans, UnreadableMask, read_masks
from maskscore.masks import drawable
from maskscore.schema import Job, Mask, MasksRef, Notice
from maskscore.settings import WorkerSettings
from maskscore.storage import object_path
from maskscore_worker.inputs.images import ImageFile, header_size

__all__ = ["JobMasks", "check_count", "read_job_masks"]


@dataclass(frozen=True, slots=True)
class JobMasks:
    """The masks in their order, and notices of what was left out or may be meant otherwise."""

    masks: list[Mask | UnreadableMask]
    notices: list[Notice]


def read_job_masks(job: Job, document: bytes | None, image: ImageFile, settings: WorkerSettings) -> JobMasks:
    """Return the job's masks.

    ``document`` is the fetched masks document, ``None`` for masks in the job; ``image`` is for formats whose
    coordinates depend on its size. Raises :class:`~maskscore.errors.JobError`: ``masks_invalid``,
    ``too_many_masks``.
    """
    masks: list[Mask | UnreadableMask]
    notices: list[Notice] = []
    if isinstance(job.masks, MasksRef):
        orphans, doubts = Orphans(), list[str]()
        try:
            masks = read_masks(
                document or b"",
                image_name=object_path(job.image.uri),
                file_name=job.masks.uri,
                image_id=job.masks.image_id,
                check_count=lambda count: check_count(count, "masks", settings),
                format=job.masks.format,
                size=header_size(image, job.image.orientation, max_pixels=settings.max_pixels),
                max_pixels=settings.max_pixels,
                max_bytes=settings.max_masks_bytes,
                orphans=orphans,
                doubts=doubts,
            )
        except MasksDocumentError as error:
            raise JobError(FailureCode.MASKS_INVALID, f"{job.masks.uri}: {error}") from error
        if orphans.count:
            message = f"In the masks' file {orphans}; they are not scored."
            notices.append(Notice(code=WarningCode.ANNOTATIONS_WITHOUT_IMAGE, message=message))
        notices += [Notice(code=WarningCode.MASKS_DOUBTFUL, message=doubt) for doubt in doubts]
    else:
        masks = list(job.masks)
    notices += _undrawable_polygons(masks)
    if not masks:
        notices.append(Notice(code=WarningCode.NO_MASKS, message="The job has no masks, so there is nothing to score."))
    return JobMasks(masks, notices)


def check_count(count: int, what: str, settings: WorkerSettings) -> None:
    """Raise :class:`~maskscore.errors.JobError` with ``too_many_masks`` for more masks or components than allowed."""
    if count > settings.max_masks:
        raise JobError(
            FailureCode.TOO_MANY_MASKS,
            f"The job has {count:,} {what}; at most {settings.max_masks:,} are taken (MASKSCORE_MAX_MASKS). "
            "Split it into several jobs of the same image.",
        )


def _undrawable_polygons(masks: list[Mask | UnreadableMask]) -> list[Notice]:
    """Name the masks that have polygons without area beside others."""
    found = [
        f"{mask.id!r:.60} ({len(mask.segmentation) - len(drawable(mask.segmentation))} of {len(mask.segmentation)})"
        for mask in masks
        if isinstance(mask, Mask)
        and isinstance(mask.segmentation, list)
        and len(mask.segmentation) > len(drawable(mask.segmentation))
    ]
    if not found:
        return []
    some = f"{', '.join(found[:3])}{', ...' if len(found) > 3 else ''}"
    message = f"Polygons of fewer than three points are left out, in {len(found):,} masks: {some}."
    return [Notice(code=WarningCode.POLYGONS_LEFT_OUT, message=message)]
