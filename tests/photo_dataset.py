"""A small dataset in COCO's and in SA-1B's layout: drawn scenes and scikit-image's photos, with masks of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask
from skimage.measure import approximate_polygon, find_contours

from maskscore_worker.demo.scenes import draw_scene
from maskscore_worker.inputs.sample_photos import PHOTOS, cut_into_masks, photo

__all__ = ["CATEGORIES", "COCO_MINI", "IMAGES", "MASKS", "SIDES", "name_of", "write_photo_dataset"]

IMAGES: Final = 14
MASKS: Final = 100
SIDES: Final = (640, 480)
"""Width and height of the photos, which come last; scenes have their own."""
CATEGORIES: Final[list[dict[str, Any]]] = json.loads((Path(__file__).parent / "data/coco-categories.json").read_text())
"""COCO's 80, from its annotations of 2017."""
COCO_MINI: Final = Path(__file__).parents[2] / "shared" / "data" / "coco-mini"
"""14 photos of COCO with 100 masks in the same layouts, where they are there."""

Bits = npt.NDArray[np.bool_]


def name_of(number: int) -> str:
    """Return the name of an image's files, without the ending; ``number`` counts from 0."""
    return f"{_id_of(number):012d}"


def _id_of(number: int) -> int:
    return 41888 + 1000 * number


def write_photo_dataset(folder: Path) -> None:
    """Write ``instances.json``, ``images/*.jpg`` and ``sa1b/*.json`` into ``folder``."""
    for name in ("images", "sa1b"):
        (folder / name).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (pixels, masks) in enumerate(_pictures()):
        height, width = pixels.shape[:2]
        name = f"{name_of(number)}.jpg"
        Image.fromarray(pixels).save(folder / "images" / name, quality=90)
        image = {"file_name": name, "width": width, "height": height}
        images.append(
            {**image, "id": _id_of(number), "license": 1, "coco_url": f"http://images.cocodataset.org/val2017/{name}"}
        )
        entries = []
        for bits in masks:
            annotation, rle = _annotated(bits, 1 + len(annotations))
            annotations.append({**annotation, "image_id": _id_of(number)})
            entries.append(
                {
                    "id": annotation["id"],
                    "segmentation": {**rle, "counts": rle["counts"].decode()},
                    "area": int(coco_mask.area(rle)),
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "predicted_iou": 0.9,
                    "stability_score": 0.95,
                    "point_coords": [[1.0, 1.0]],
                    "crop_box": [0, 0, width, height],
                }
            )
        sa1b = {"image": {**image, "image_id": _id_of(number)}, "annotations": entries}
        (folder / "sa1b" / f"{name_of(number)}.json").write_text(json.dumps(sa1b))
    assert (len(images), len(annotations)) == (IMAGES, MASKS)
    coco = {
        "images": images,
        "annotations": annotations,
        "categories": CATEGORIES,
        "licenses": [{"id": 1, "name": "any", "url": "http://127.0.0.1/"}],
    }
    (folder / "instances.json").write_text(json.dumps(coco))


def _pictures() -> Iterator[tuple[npt.NDArray[np.uint8], list[Bits]]]:
    left = MASKS
    for seed in range(IMAGES - len(PHOTOS)):
        scene = draw_scene(440_001 + seed)
        masks = [mask.mask for mask in scene.masks if mask.kind != "background"]
        left -= len(masks)
        yield scene.image, masks
    for number, name in enumerate(PHOTOS):
        pixels = np.asarray(Image.fromarray(photo(name)).resize(SIDES))
        most = -(-left // (len(PHOTOS) - number))
        # Of a quarter of the pixels: the segmenter is slow.
        masks = [bits.repeat(2, 0).repeat(2, 1) for bits in cut_into_masks(pixels[::2, ::2], most=most)]
        left -= len(masks)
        yield pixels, masks


def _annotated(bits: Bits, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return COCO's annotation, every ninth a crowd in uncompressed RLE, and the RLE of what it draws."""
    if number % 9 == 0:
        rle = coco_mask.encode(np.asfortranarray(bits, dtype=np.uint8))
        changes = np.flatnonzero(np.diff(bits.ravel(order="F"), prepend=False))
        counts = np.diff([0, *changes, bits.size]).tolist()
        segmentation: Any = {"size": list(bits.shape), "counts": counts}
    else:
        lines: list[npt.NDArray[np.float64]] = [
            approximate_polygon(line, 1.0)  # type: ignore[no-untyped-call]
            for line in find_contours(np.pad(bits, 1).astype(float))  # type: ignore[no-untyped-call]
        ]
        outlines = [np.maximum(np.flip(line, 1) - 0.5, 0).round(2) for line in lines if len(line) > 3]
        segmentation = [outline.ravel().tolist() for outline in outlines]
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, *bits.shape))
    annotation = {
        "id": number,
        "segmentation": segmentation,
        "category_id": CATEGORIES[number % len(CATEGORIES)]["id"],
        "iscrowd": int(number % 9 == 0),
        "area": float(coco_mask.area(rle)),
        "bbox": coco_mask.toBbox(rle).tolist(),
    }
    return annotation, rle
