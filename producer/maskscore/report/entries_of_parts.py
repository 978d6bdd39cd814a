"""Reads the input of a report from parts of shards: each image with its masks and its bytes, if they can be read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from pydantic import ValidationError

from maskscore.errors import JobError
from maskscore.formats import UnreadableMask
from maskscore.report.report_entry import ReportEntry, raise_unless_permanent, unrestricted_objects
from maskscore.results import ImageResult, PartsPlace, image_results
from maskscore.schema import ImageRef, Job, Mask, ScoringOptions, View, ViewUsed
from maskscore.storage import Objects

__all__ = ["parts_entries"]

_MAX_BYTES: Final = 1 << 28
_COMPRESSED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")


def parts_entries(place: PartsPlace) -> Iterator[ReportEntry]:
    """Read what the report needs of each image of parts, one after the other, with this process's access to files.

    Images of a plain tar are read by their ranges; those of a compressed one leave the scores to show, as do images
    that cannot be read any more. Raises as :func:`maskscore.results.image_results` does, and
    :class:`~maskscore.errors.JobError` (transient) where a store is away.
    """
    with unrestricted_objects() as objects:
        compressed = cache(lambda tar: _is_compressed(objects, tar))
        for image in image_results(place, segmentations=True):
            yield _entry(image, objects, compressed)


def _entry(image: ImageResult, objects: Objects, compressed: Any) -> ReportEntry:
    # Each component has a segmentation of its own, also a part of a mask.
    components = [
        component.model_copy(update={"index": number}) for number, component in enumerate(image.result.components)
    ]
    result = image.result.model_copy(update={"components": components})
    if image.image is None:
        return ReportEntry(None, result, None)
    job = Job.model_construct(
        job_id=result.job_id,
        batch_id=result.batch_id,
        image=ImageRef.model_construct(uri=image.image),
        masks=[],
        options=_options(result.views),
    )
    if result.image is None:
        return ReportEntry(job, result, None)
    masks = [_mask(component.id, found) for component, found in zip(components, image.segmentations, strict=True)]
    tar, inside, _ = image.image.partition("!/")
    row, data, missing = image.row, None, None
    try:
        if not inside:
            data = objects.read(image.image, what="image", max_bytes=_MAX_BYTES, etag=row["etag"]).data
        elif row["image_offset"] is None or compressed(tar):
            missing = "The image is not shown: single images are not read from a compressed tar."
        else:
            given = {"etag": row["etag"]}
            data = objects.read_range(tar, row["image_offset"], row["image_bytes"], what="image", **given).data
    except JobError as error:
        raise_unless_permanent(error)
        missing = f"The image cannot be read any more. {error}"
    return ReportEntry(job, result, data, masks, missing, masks_of_components=True)


def _is_compressed(objects: Objects, tar: str) -> bool:
    return objects.read_range(tar, 0, 4, what="image").data.startswith(_COMPRESSED)


def _options(views: list[ViewUsed]) -> ScoringOptions:
    """Return the options that say what the views say."""
    if not views:
        return ScoringOptions()
    first, *others = (View.parse(view.text) for view in views)
    return ScoringOptions(**first.model_dump(), average_with=tuple(others))


def _mask(mask_id: str, segmentation: Any) -> Mask | UnreadableMask:
    if segmentation is not None:
        try:
            return Mask(id=mask_id, segmentation=segmentation)
        except ValidationError:
            pass
    return UnreadableMask(mask_id, "The parts hold no segmentation of it.")
