"""Copies and parts among the masks of an image that are to be exported."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from maskscore.export.selection import Selection

if TYPE_CHECKING:
    from maskscore.masks.arrays import Displaced

__all__ = ["displaced_masks", "pycocotools_rle"]


def displaced_masks(masks: Sequence[dict[str, Any]], selection: Selection) -> Iterator[Displaced]:
    """Yield what the selection's ``nms``, ``drop_parts`` and ``drop_wholes`` leave out of an image's exported masks.

    ``masks`` are the best first. Those without a segmentation are not compared, nor are masks of jobs that took the
    image in another frame (turned by EXIF, or as stored) with each other.
    """
    from maskscore.masks.arrays import find_displaced

    frames: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, mask in enumerate(masks):
        if mask["segmentation"] is not None and mask["area"]:
            frames[mask["image_height"], mask["image_width"]].append(place)
    for (height, width), places in frames.items():
        found = find_displaced(
            [pycocotools_rle(masks[place]["segmentation"], height, width) for place in places],
            [masks[place]["area"] for place in places],
            [masks[place]["box"] for place in places],
            nms=selection.nms,
            drop_parts=selection.drop_parts,
            drop_wholes=selection.drop_wholes,
        )
        for entry in found:
            yield replace(entry, mask=places[entry.mask], by=places[entry.by])


def pycocotools_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Return an exported segmentation, RLE or COCO polygons, as pycocotools' compressed RLE."""
    from pycocotools import mask as coco

    from maskscore.masks.arrays import without_empty_runs

    if not isinstance(segmentation, list):
        counts = without_empty_runs(segmentation["counts"], height=height, width=width)
        return {"size": [height, width], "counts": counts}
    return dict(coco.merge(coco.frPyObjects(segmentation, height, width)))
