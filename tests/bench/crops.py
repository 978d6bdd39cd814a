"""Decode → regions → treatment → resize: processor time per mask, ours against the specification's per-mask code."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.material import COCO_MINI, jpeg, masks, photograph
from bench.turns import in_turn
from maskscore.imaging import ClipTransform
from maskscore.masks import count_fitting, encode_mask
from maskscore.schema.job import Mask, View
from maskscore_worker.crops.cpu_cropper import make_crop, treat
from maskscore_worker.inputs.images import ImageFile, decode_image
from maskscore_worker.masks.regions import Region, find_regions
from reference import decode, treated

__all__ = ["coco_mini", "crops_of", "plain", "run"]

SIZE = 224
Picture = tuple[bytes, list[Mask]]
Crops = list[npt.NDArray[np.uint8]]


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure a large photo with a hundred masks, and the shared photos where they are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        photo = (jpeg(photograph()), [_mask(number, bits) for number, bits in enumerate(masks(100))])
        _measure(console, figures, "crops", "one photo of 2250 x 1500, 100 masks", [photo], repeats=9 if full else 3)
        if COCO_MINI.is_dir():
            pictures = coco_mini()
            count = sum(len(found) for _, found in pictures)
            title = f"coco-mini: {len(pictures)} photos, {count} masks"
            _measure(console, figures, "crops.coco", title, pictures, repeats=9 if full else 3)
    finally:
        torch.set_num_threads(threads)


def _measure(
    console: Console, figures: Figures, key: str, title: str, pictures: list[Picture], *, repeats: int
) -> None:
    count = sum(len(found) for _, found in pictures)
    stages: dict[str, Callable[[], object]] = {
        "decode": lambda: [_pixels(data, found) for data, found in pictures],
        "regions": lambda: [_regions(found, *shape) for (_, found), shape in zip(pictures, shapes, strict=True)],
        "treatment": lambda: [_treated(pixels, region) for pixels, region in regions],
        "treatment and resize": lambda: [_crop(pixels, region) for pixels, region in regions],
        "all of it, for fp32": lambda: crops_of(pictures),
        "all of it, for bf16": lambda: crops_of(pictures, exact=False),
        "the specification's code": lambda: _specification(pictures),
    }
    decoded = [_pixels(data, found) for data, found in pictures]
    shapes = [(pixels.shape[0], pixels.shape[1]) for pixels in decoded]
    regions = [
        (pixels, region)
        for pixels, (_, found) in zip(decoded, pictures, strict=True)
        for region in _regions(found, *pixels.shape[:2])
    ]
    exact = np.stack(_specification(pictures)).astype(int)
    differences = [np.abs(np.stack(crops_of(pictures, exact=mode)) - exact) for mode in (True, False)]
    if differences[0].max() > 2 or (differences[0] > 0).mean() > 1e-4 or differences[1].max() > 2:
        raise AssertionError("the crops differ from the specification's")
    measured = in_turn(stages, repeats=repeats)
    table = Table(title=title, caption=_caption(differences))
    for column in ("step", "processor ms per mask", "share of the specification's"):
        table.add_column(column, justify="left" if column == "step" else "right")
    specification = measured["the specification's code"].cpu_s
    for name, taken in measured.items():
        table.add_row(name, f"{taken.cpu_s / count * 1000:.2f}", f"{taken.cpu_s / specification:.0%}")
    console.print(table)
    ours = measured["all of it, for fp32"].cpu_s
    figures[f"{key}.ours_ms"] = ours / count * 1000
    figures[f"{key}.ours_bf16_ms"] = measured["all of it, for bf16"].cpu_s / count * 1000
    figures[f"{key}.spec_ms"] = specification / count * 1000
    figures[f"{key}.ratio"] = specification / ours
    for name in ("decode", "regions", "treatment"):
        figures[f"{key}.{name}_ms"] = measured[name].cpu_s / count * 1000


def _caption(differences: list[npt.NDArray[np.int64]]) -> str:
    return ", ".join(
        f"{name}: {(found > 0).mean():.2%} of the values differ, by {found.max()} of 255 at most"
        for name, found in zip(("fp32", "bf16"), differences, strict=True)
    )


def _mask(number: int, bits: npt.NDArray[np.bool_]) -> Mask:
    return Mask(id=str(number), segmentation=encode_mask(bits))


def _pixels(data: bytes, found: list[Mask]) -> npt.NDArray[np.uint8]:
    def fitting(height: int, width: int) -> int:
        return count_fitting(found, height, width)

    return decode_image(ImageFile(data, "photo"), orientation="auto", count_fitting=fitting, max_pixels=10**8).pixels


def _regions(found: list[Mask], height: int, width: int) -> list[Region]:
    yielded = find_regions(found, height=height, width=width, min_area=0, split_components=False)
    return [region for region in yielded if isinstance(region, Region)]


def _treated(pixels: npt.NDArray[np.uint8], region: Region) -> npt.NDArray[np.uint8]:
    x, y, width, height = region.box
    return treat(pixels[y : y + height, x : x + width], region.bits, View(), longer_side=max(width, height))


def _crop(
    pixels: npt.NDArray[np.uint8], region: Region, size: int = SIZE, *, exact: bool = True
) -> npt.NDArray[np.uint8]:
    return make_crop(pixels, region.box, region.bits, View(), transform=ClipTransform(size), exact=exact)


def crops_of(pictures: list[Picture], size: int = SIZE, *, exact: bool = True) -> Crops:
    """Return the crops, ``(size, size, 3)`` uint8 each, as the worker makes them of encoded images and masks."""
    crops: Crops = []
    for data, found in pictures:
        pixels = _pixels(data, found)
        crops += [_crop(pixels, region, size, exact=exact) for region in _regions(found, *pixels.shape[:2])]
    return crops


def _specification(pictures: list[Picture]) -> Crops:
    transform: Any = image_transform_v2(PreprocessCfg(size=SIZE, mean=(0, 0, 0), std=(1, 1, 1)), is_train=False)
    crops: Crops = []
    for data, found in pictures:
        pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        for mask in found:
            bits = decode(plain(mask), *pixels.shape[:2])
            rows, columns = np.nonzero(bits)
            inside = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
            tensor = transform(Image.fromarray(treated(pixels[inside], bits[inside], "original", 0.4)))
            # Back to grey levels only to compare; 0.1 ms of the specification's time per mask.
            crops.append((tensor.numpy() * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
    return crops


def plain(mask: Mask) -> Any:
    """Return a mask's segmentation as pycocotools takes it."""
    segmentation = mask.segmentation
    if isinstance(segmentation, list):
        return segmentation
    counts = segmentation.counts.encode() if isinstance(segmentation.counts, str) else list(segmentation.counts)
    return {"size": list(segmentation.size), "counts": counts}


def coco_mini() -> list[Picture]:
    """Return the shared photos, encoded, each with its masks."""
    document = json.loads((COCO_MINI / "instances.json").read_text("utf-8"))
    pictures = []
    for image in document["images"]:
        found = [
            Mask.model_validate({"id": str(annotation["id"]), "segmentation": annotation["segmentation"]})
            for annotation in document["annotations"]
            if annotation["image_id"] == image["id"]
        ]
        pictures.append(((COCO_MINI / "images" / image["file_name"]).read_bytes(), found))
    return pictures
