"""What the benchmarks measure with: a photo, masks as a segmenter gives them, and weights of the real size."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from in_memory_files import image_file
from maskscore_worker.inputs.sample_photos import PHOTOS, photo

__all__ = ["BUILD", "COCO_MINI", "HEIGHT", "WIDTH", "full_size_weights", "jpeg", "masks", "photograph"]

BUILD: Final = Path(__file__).parents[2] / "build"
COCO_MINI: Final = Path(__file__).parents[3] / "shared" / "data" / "coco-mini"
HEIGHT: Final = 1500
WIDTH: Final = 2250

Bits = npt.NDArray[np.bool_]


@lru_cache(maxsize=4)
def photograph(height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    """Return ``(height, width, 3)`` uint8 RGB: six real photos side by side, so that it has a photo's detail."""
    picture = Image.new("RGB", (width, height))
    for tile in range(6):
        part = Image.fromarray(photo(PHOTOS[tile % len(PHOTOS)]))
        if tile >= len(PHOTOS):
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        side = (-(-width // 3), -(-height // 2))
        picture.paste(part.resize(side, Image.Resampling.BICUBIC), (tile % 3 * side[0], tile // 3 * side[1]))
    return np.asarray(picture)


def jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return the picture as JPEG of quality 90."""
    return image_file(pixels, "JPEG", quality=90)


def masks(count: int, *, height: int = HEIGHT, width: int = WIDTH, seed: int = 1) -> list[Bits]:
    """Return ``(height, width)`` bool masks whose areas have SA-1B's heavy tail.

    The masks' size relative to the image, ``sqrt(area / image area)``, is log-normal around 0.06, so that most are
    small and a few cover much of the image (Kirillov et al., "Segment Anything", 2023, figure 6). Their outlines are
    wavy and longer than wide, as those of things are.
    """
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    found: list[Bits] = []
    while len(found) < count:
        radius = min(0.8, max(0.008, rng.lognormal(np.log(0.06), 0.9))) * np.sqrt(height * width / np.pi)
        outline = 1 + sum(rng.normal(0, 0.25 / k) * np.sin(k * angles + rng.uniform(0, 6.3)) for k in range(2, 9))
        aspect, turn = np.exp(rng.normal(0, 0.35)), rng.uniform(0, np.pi)
        x, y = radius * outline * np.cos(angles) * aspect, radius * outline * np.sin(angles) / aspect
        xs = x * np.cos(turn) - y * np.sin(turn) + rng.uniform(0, width)
        ys = x * np.sin(turn) + y * np.cos(turn) + rng.uniform(0, height)
        canvas = Image.new("1", (width, height))
        ImageDraw.Draw(canvas).polygon(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=1)
        bits = np.asarray(canvas)
        if bits.sum() >= 100:
            found.append(bits)
    return found


def full_size_weights() -> Path:
    """Return a folder with ViT-B-32 at full size and random weights, made once: speed does not depend on values."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = BUILD / "vit-b-32-random"
    file = folder / "open_clip_model.safetensors"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(7)
        logging.disable(logging.WARNING)
        state = open_clip.create_model("ViT-B-32", pretrained=None).state_dict()
        logging.disable(logging.NOTSET)
        partial = file.with_suffix(".partial")
        save_file({name: value.contiguous() for name, value in state.items()}, partial)
        partial.rename(file)
    return folder
