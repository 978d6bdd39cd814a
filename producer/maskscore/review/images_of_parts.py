"""The chosen masks of parts, and their images, which are taken out of tars where they are members of some."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Final

from maskscore.errors import JobError
from maskscore.export import ExportedJob, ExportedMask, FileMetadata, Parts
from maskscore.results import image_results
from maskscore.review.image_urls import ImageUnavailable, ImageUrls
from maskscore.schema import ImageInfo
from maskscore.storage import output_errors

__all__ = ["TarImages", "read_images"]

_COMPRESSED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")


def read_images(parts: Parts, masks: Iterable[ExportedMask]) -> dict[tuple[str, str], tuple[ExportedJob, Any]]:
    """Return, by shard id and URI, the image of these masks with all its masks, and its row of ``images``.

    Raises as :func:`maskscore.results.image_results` does.
    """
    wanted: dict[tuple[str, str], ExportedMask] = {(mask.job_id, mask.image): mask for mask in masks}
    uris = {uri for _, uri in wanted}
    found: dict[tuple[str, str], tuple[ExportedJob, Any]] = {}
    found_images = image_results(parts.place, wanted=uris.__contains__, listing=parts.listing, segmentations=True)
    for image in found_images:
        key = (image.result.job_id, image.image or "")
        info = image.result.image
        if key not in wanted or info is None:
            continue
        own = [
            wanted[key].model_copy(
                update={
                    "mask_id": component.id,
                    "mask_index": component.index,
                    "part": component.part,
                    "box": component.box,
                    "area": component.area,
                    "segmentation": segmentation,
                }
            )
            for component, segmentation in zip(image.result.components, image.segmentations, strict=True)
        ]
        found[key] = ExportedJob(info, None, FileMetadata(), own), image.row
    return found


class TarImages:
    """Takes images out of plain tars, into a folder that is made for the first of them."""

    def __init__(self, urls: ImageUrls, folder: Path) -> None:
        self._urls, self._folder = urls, folder
        self._is_compressed: dict[str, bool] = {}

    def file_of(self, image: ImageInfo, row: dict[str, Any]) -> ImageInfo:
        """Return the image as a file of its own; one that is no member of a tar as it is.

        Raises :class:`ImageUnavailable`, :class:`~maskscore.errors.OutputError` for a folder that cannot be written,
        and :class:`~maskscore.errors.JobError` (transient) where a store does not answer.
        """
        tar, inside, name = image.uri.partition("!/")
        if not inside:
            return image
        objects, start = self._urls.objects, row["image_offset"]
        try:
            if tar not in self._is_compressed:
                head = objects.read_range(tar, 0, 4, what="image").data
                self._is_compressed[tar] = head.startswith(_COMPRESSED)
            if start is None or self._is_compressed[tar]:
                raise ImageUnavailable(f"{tar} is compressed, and single images are not read out of it.")
            data = objects.read_range(tar, start, row["image_bytes"], what="image", etag=image.etag).data
        except JobError as error:
            if error.input_may_be_fine:
                raise
            raise ImageUnavailable(str(error)) from error
        digest = hashlib.sha256(image.uri.encode()).hexdigest()[:8]
        path = self._folder.absolute() / f"{digest}-{PurePosixPath(name).name}"
        with output_errors(path):
            self._folder.mkdir(exist_ok=True)
            path.write_bytes(data)
        return image.model_copy(update={"uri": path.as_uri(), "etag": None})
