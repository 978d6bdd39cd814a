"""Ultralytics' segmentation datasets: a file of label text per image, and ``data.yaml`` with the classes' names.

Source: https://docs.ultralytics.com/datasets/segment. A line is ``class x1 y1 x2 y2 ...``, one polygon per object, with
the sides of the image as 1; Ultralytics draws it with ``cv2.fillPoly``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import from_json

from maskscore.client import Batch, Client
from maskscore.export.buffered_masks import buffered_masks
from maskscore.export.categories import Categories, read_categories
from maskscore.export.copies import pycocotools_rle
from maskscore.export.export_counts import ExportCounts
from maskscore.export.mask_buffer import BufferedImage, MaskBuffer
from maskscore.export.parts_source import Parts
from maskscore.export.selection import Selection
from maskscore.storage import Output, output_folder

__all__ = ["write_yolo"]

# Far finer than a pixel of any image.
_DIGITS = 7
# Some read a point as the nearest pixel, and Ultralytics' `polygon2mask` cuts off what is behind the point: with a
# little more than the whole number both get it, whatever 32-bit numbers make of it in between.
_INTO_PIXEL = 0.1


def write_yolo(
    client: Client, jobs: Batch | Parts | Iterable[str], output: Output, selection: Selection | None = None
) -> ExportCounts:
    """Write a folder with ``labels/NAME.txt`` for each image ``NAME.jpg`` that has masks, and ``data.yaml``.

    The classes are the categories that :func:`maskscore.export.write_coco` writes, numbered from 0. Each mask is one
    line: holes are cut in, and parts joined by lines (:mod:`maskscore.masks.arrays.outlines`). Of images with the same
    name in several folders, all but the first have eight digits of their URI's digest in the name. Needs NumPy and
    pycocotools (``pip install "maskscore[export]"``). Raises as :func:`maskscore.export.write_coco` does; ``output``
    must not exist, or be an empty folder.
    """
    place = output_folder(output, client.objects, content_type="text/plain")
    with buffered_masks(client, jobs, selection, place) as (folder, buffer, counts):
        _write(folder, buffer, read_categories(client, buffer))
    return counts


def _write(folder: Path, buffer: MaskBuffer, categories: Categories) -> None:
    classes = {number: place for place, number in enumerate(categories.entries)}
    (folder / "labels").mkdir()
    for image, stem, own in buffer.masks_by_image():
        lines = [_line(classes[categories.id_of(mask)], from_json(mask.json), image) for mask in own]
        (folder / "labels" / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")
    names = {place: categories.name_of(number) for number, place in classes.items()}
    dataset = {"train": "images", "val": "images", "names": names}
    (folder / "data.yaml").write_text(
        "# The images belong into images/ beside labels/, under the names of the label files.\n"
        "# All are for training and validation here: Ultralytics wants both.\n"
        + yaml.safe_dump(dataset, allow_unicode=True, sort_keys=False),
        encoding="utf-8",
    )


def _line(class_: int, mask: dict[str, Any], image: BufferedImage) -> str:
    import numpy as np
    from pycocotools import mask as coco

    from maskscore.masks.arrays import joined_outline

    height, width = mask["image_height"], mask["image_width"]
    x, y, w, h = mask["box"]
    bits = coco.decode(pycocotools_rle(mask["segmentation"], height, width))[y : y + h, x : x + w]
    outline = joined_outline(bits.astype(bool))
    numbers = ((outline + np.array([x, y]) + _INTO_PIXEL) / (width, height)).ravel().tolist()
    return " ".join([str(class_), *(f"{number:.{_DIGITS}g}" for number in numbers)]) + "\n"
