"""Tars as SA-1B has them: JPEGs and JSON with compressed RLE, in several orders, and cut off or damaged."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskscore.masks.arrays import rle_of_mask
from maskscore.schema import text_from_counts
from maskscore_worker.demo.scenes import draw_scene
from maskscore_worker.inputs.sample_photos import PHOTOS, cut_into_masks, photo

__all__ = ["Files", "Order", "drawn_pair", "drawn_pairs", "pair_of", "photo_pair", "write_tar"]

Order = Literal["pairs", "masks first", "apart", "shuffled"]
Files = list[tuple[str, bytes]]
_SIZE: Final = (240, 320)


def drawn_pair(seed: int, size: tuple[int, int] = _SIZE) -> Files:
    """Return the JPEG and the JSON of a drawn scene, ``sa_SEED.jpg`` and ``sa_SEED.json``."""
    scene = draw_scene(seed, size)
    return pair_of(f"sa_{seed}", seed, scene.image, [mask.mask for mask in scene.masks])


def photo_pair(number: int) -> Files:
    """Return the JPEG and the JSON of one of scikit-image's photos, cut into segments."""
    pixels = photo(PHOTOS[number % len(PHOTOS)])
    return pair_of(f"sa_{number}", number, pixels, list(cut_into_masks(pixels)))


def drawn_pairs(count: int, size: tuple[int, int] = _SIZE) -> Files:
    """Return the files of drawn scenes, pair by pair."""
    return [file for seed in range(1, count + 1) for file in drawn_pair(seed, size)]


def write_tar(
    path: Path, files: Iterable[tuple[str, bytes]], *, order: Order = "pairs", format: int = tarfile.GNU_FORMAT
) -> Path:
    """Write a tar of files, compressed as its name says (``.tar.gz``); return its path.

    ``apart``: all images, then all masks in the opposite order. ``shuffled``: in an order of its own, always the same.
    """
    files = list(files)
    if order == "masks first":
        files = [files[n ^ 1] for n in range(len(files))]
    elif order == "apart":
        files = files[0::2] + files[1::2][::-1]
    elif order == "shuffled":
        random.Random(7).shuffle(files)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=format) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pair_of(name: str, number: int, pixels: npt.NDArray[np.uint8], masks: list[npt.NDArray[np.bool_]]) -> Files:
    """Return the JPEG and the JSON of a picture ``(H, W, 3)`` and its masks ``(H, W)``, called ``name``."""
    image = Image.fromarray(pixels)
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=90)
    about = {"image_id": number, "width": image.width, "height": image.height, "file_name": f"{name}.jpg"}
    annotations = []
    for mask_id, mask in enumerate(masks):
        rle = rle_of_mask(mask)
        counts = rle.counts if isinstance(rle.counts, str) else text_from_counts(rle.counts)
        annotations.append(
            {
                "id": 1000 * number + mask_id,
                "segmentation": {"size": [image.height, image.width], "counts": counts},
                "area": int(mask.sum()),
                "predicted_iou": 0.9,
                "stability_score": 0.95,
                "point_coords": [[1.0, 1.0]],
                "crop_box": [0, 0, image.width, image.height],
            }
        )
    return [
        (f"{name}.jpg", jpeg.getvalue()),
        (f"{name}.json", json.dumps({"image": about, "annotations": annotations}).encode()),
    ]
