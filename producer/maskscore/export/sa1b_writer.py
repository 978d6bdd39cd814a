"""SA-1B's JSON, a file per image, with the scores as fields of the annotations.

https://github.com/facebookresearch/segment-anything#dataset describes the layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from maskscore.client import Batch, Client
from maskscore.export.buffered_masks import buffered_masks
from maskscore.export.coco_writer import scores_of
from maskscore.export.export_counts import ExportCounts
from maskscore.export.mask_buffer import BufferedImage, MaskBuffer
from maskscore.export.parts_source import Parts
from maskscore.export.selection import Selection
from maskscore.parts import rle_of
from maskscore.schema import plain_id
from maskscore.storage import Output, file_name_of, output_folder

__all__ = ["write_sa1b"]


def write_sa1b(
    client: Client, jobs: Batch | Parts | Iterable[str], output: Output, selection: Selection | None = None
) -> ExportCounts:
    """Write a folder with ``NAME.json`` for each image ``NAME.jpg`` that has masks.

    ``image`` and the annotations keep the fields that they have upstream; polygons become RLE. Ids are integers: masks
    with other ids, and parts, are numbered, and ``mask_id`` has their own. Of images with the same
    name in several folders, all but the first have eight digits of their URI's digest in the name. Raises as
    :func:`maskscore.export.write_jsonl` does; ``output`` must not exist, or be an empty folder.
    """
    place = output_folder(output, client.objects, content_type="application/json")
    with buffered_masks(client, jobs, selection, place) as (folder, buffer, counts):
        _write(folder, buffer)
    return counts


def _write(folder: Path, buffer: MaskBuffer) -> None:
    kept_ids = buffer.image_ids_are_unique()
    for image, stem, own in buffer.masks_by_image():
        document = {
            "image": _image(image, kept_ids=kept_ids),
            "annotations": list(_annotations((mask.json for mask in own), image)),
        }
        (folder / f"{stem}.json").write_text(json.dumps(document), encoding="utf-8")


def _image(image: BufferedImage, *, kept_ids: bool) -> dict[str, Any]:
    return {
        "file_name": file_name_of(image.uri),
        **image.entry,
        "image_id": image.image_id if kept_ids else image.number,
        "width": image.width,
        "height": image.height,
        "uri": image.uri,
    }


def _annotations(masks: Iterable[str], image: BufferedImage) -> Iterator[dict[str, Any]]:
    own = [from_json(text) for text in masks]
    for mask, number in zip(own, _ids(own), strict=True):
        yield {
            **mask["upstream"],
            "id": number,
            "segmentation": rle_of(mask["segmentation"], height=image.height, width=image.width),
            "bbox": mask["box"],
            "area": mask["area"],
            **scores_of(mask),
        }


def _ids(masks: list[dict[str, Any]]) -> Iterator[int]:
    """Yield SA-1B's ids, which are integers: a mask's own where it is one; parts and others get numbers above those."""
    known = [None if mask["part"] is not None else plain_id(mask["mask_id"]) for mask in masks]
    numbers = [number if isinstance(number, int) and number >= 0 else None for number in known]
    free = count(max((number for number in numbers if number is not None), default=0) + 1)
    taken: set[int] = set()
    for number in numbers:
        own = next(free) if number is None or number in taken else number
        taken.add(own)
        yield own
