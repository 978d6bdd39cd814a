"""Label Studio's JSON import: a task per image, with the masks as a prediction of brushes.

Source: https://labelstud.io/guide/predictions and https://labelstud.io/tags/brushlabels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

from pydantic_core import from_json

from maskscore.client import Batch, Client
from maskscore.export.buffered_masks import buffered_masks
from maskscore.export.categories import Categories, read_categories
from maskscore.export.copies import pycocotools_rle
from maskscore.export.export_counts import ExportCounts
from maskscore.export.labels import LABEL_SOURCES
from maskscore.export.mask_buffer import BufferedImage, BufferedMask
from maskscore.export.parts_source import Parts
from maskscore.export.selection import Selection
from maskscore.formats import encode_brush
from maskscore.storage import Output, output_file

__all__ = ["write_label_studio"]


def write_label_studio(
    client: Client, jobs: Batch | Parts | Iterable[str], output: Output, selection: Selection | None = None
) -> ExportCounts:
    """Write a list of tasks, one for each image that has masks, with one prediction that has a brush for each mask.

    The brushes' tag is ``mask``, the image's ``image``; labels are the names of the categories that
    :func:`maskscore.export.write_coco` writes. A result's ``score`` is ``s_pos``, with labels
    from a head ``p_keep``; the prediction's is the mean of them.
    Needs NumPy and pycocotools (``pip install "maskscore[export]"``). Raises as :func:`maskscore.export.write_coco`
    does.
    """
    place = output_file(output, client.objects, content_type="application/json")
    with buffered_masks(client, jobs, selection, place) as (path, buffer, counts):
        categories = read_categories(client, buffer)
        labelling = buffer.selection.labelling
        score = "s_pos" if labelling is None else LABEL_SOURCES[labelling.source].score
        with path.open("w", encoding="utf-8") as file:
            separator = "[\n"
            for image, _, own in buffer.masks_by_image():
                file.write(separator + json.dumps(_task(image, own, categories, score)))
                separator = ",\n"
            file.write("]\n" if separator == ",\n" else "[]\n")
    return counts


def _task(image: BufferedImage, masks: Iterable[BufferedMask], categories: Categories, score: str) -> dict[str, Any]:
    results = list(_results(masks, categories, score))
    scores = [result["score"] for result in results if "score" in result]
    prediction = {
        "model_version": f"maskscore {metadata.version('maskscore')}",
        **({"score": sum(scores) / len(scores)} if scores else {}),
        "result": results,
    }
    return {"data": {"image": image.uri}, "predictions": [prediction]}


def _results(masks: Iterable[BufferedMask], categories: Categories, score: str) -> Iterator[dict[str, Any]]:
    from pycocotools import mask as coco

    taken: set[str] = set()
    for row in masks:
        mask = from_json(row.json)
        height, width = mask["image_height"], mask["image_width"]
        bits = coco.decode(pycocotools_rle(mask["segmentation"], height, width)).astype(bool)
        labels = [categories.name_of(categories.id_of(row))]
        yield {
            "id": _id(mask, taken),
            "type": "brushlabels",
            "from_name": "mask",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": encode_brush(bits), "brushlabels": labels},
            **({"score": mask[score]} if mask.get(score) is not None else {}),
        }


def _id(mask: dict[str, Any], taken: set[str]) -> str:
    """Return the mask's id, with the part's number and, where several jobs have the same, the job's id."""
    own = mask["mask_id"] if mask["part"] is None else f"{mask['mask_id']}.{mask['part']}"
    if own in taken:
        own = f"{mask['job_id']}:{own}"
    taken.add(own)
    return str(own)
