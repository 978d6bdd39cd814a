"""Samples negatives for a file without any: uncovered background, and halves of its objects."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Final

from PIL import Image, ImageChops

from maskscore.evaluation.labelled_coco import Kind, LabelledImage, LabelledMask
from maskscore.imaging import component_bits
from maskscore.schema import RLE, Component, Mask, text_from_counts

__all__ = ["encode_picture", "sample_negatives"]

# Of the image's area; less is what is left between objects, not background.
_LEAST_REST: Final = 0.01
_RECTANGLE_SIDES: Final = (0.1, 0.4)
_MOST_RECTANGLES: Final = 5
_TRIES: Final = 20
_LEAST_PIXELS: Final = 64
# A half with nearly all or nearly none of the object would be mislabelled.
_HALF: Final = (0.2, 0.8)


def sample_negatives(image: LabelledImage, seed: int) -> list[LabelledMask]:
    """Return negatives for one image; the same for the same image, masks and ``seed``.

    - Background ``rest``: all pixels that no mask covers, crowds included, where these are 1 % of the image or more.
    - Background ``rectangle``: one per object, at least one and at most five, with sides of 10 to 40 % of the image's,
      placed at random where it touches no mask; what finds no place in 20 tries is left out.
    - Fragment ``half``: of each object the left, right, upper or lower half of its box, at random, where that holds 64
      pixels and 20 to 80 % of the object.
    """
    rng = random.Random(f"{seed}:{image.id}")
    size = (image.width, image.height)
    union = Image.new("L", size)
    objects = []
    for labelled in image.masks:
        try:
            picture = component_bits(labelled.mask, Component(id="", index=0), (0, 0, *size), size)
        except ValueError:
            continue  # of another size, or damaged: the worker skips it with its reason
        union = ImageChops.lighter(union, picture)
        if labelled.kind == "object" and picture.getbbox():
            objects.append(picture)
    sampled: list[tuple[Kind, str, Image.Image]] = []
    rest = ImageChops.invert(union)
    if _area(rest) >= _LEAST_REST * image.width * image.height:
        sampled.append(("background", "rest", rest))
    sampled += [
        ("background", "rectangle", picture)
        for picture in _rectangles(rng, union, min(_MOST_RECTANGLES, max(1, len(objects))))
    ]
    sampled += [("fragment", "half", half) for half in (_half(rng, picture) for picture in objects) if half is not None]
    return [
        LabelledMask(
            kind,
            name,
            Mask(id=f"{name}-{number}", segmentation=encode_picture(picture)),
        )
        for number, (kind, name, picture) in enumerate(sampled)
    ]


def encode_picture(picture: Image.Image) -> RLE:
    """Return an ``L`` picture of 0 and 255 as compressed RLE: :func:`maskscore.masks.encode_mask` without NumPy."""
    # Columns lie one after the other in the transpose.
    pixels = picture.transpose(Image.Transpose.TRANSPOSE).tobytes()
    counts, end = [], 0
    for run in re.finditer(rb"\xff+", pixels):
        counts += [run.start() - end, run.end() - run.start()]
        end = run.end()
    if end < len(pixels):
        counts.append(len(pixels) - end)
    return RLE(size=(picture.height, picture.width), counts=text_from_counts(counts))


def _area(picture: Image.Image) -> int:
    return picture.histogram()[255]


def _rectangles(rng: random.Random, union: Image.Image, count: int) -> Iterator[Image.Image]:
    for _ in range(count):
        for _ in range(_TRIES):
            width, height = (max(1, round(side * rng.uniform(*_RECTANGLE_SIDES))) for side in union.size)
            left, top = rng.randint(0, union.width - width), rng.randint(0, union.height - height)
            place = (left, top, left + width, top + height)
            if union.crop(place).getbbox() is None:
                picture = Image.new("L", union.size)
                picture.paste(255, place)
                yield picture
                break


def _half(rng: random.Random, picture: Image.Image) -> Image.Image | None:
    left, top, right, bottom = picture.getbbox() or (0, 0, 0, 0)
    across, down = (left + right) // 2, (top + bottom) // 2
    place = rng.choice(
        [
            (left, top, across, bottom),
            (across, top, right, bottom),
            (left, top, right, down),
            (left, down, right, bottom),
        ]
    )
    if place[2] <= place[0] or place[3] <= place[1]:
        return None
    half = Image.new("L", picture.size)
    half.paste(picture.crop(place), place)
    area, whole = _area(half), _area(picture)
    return half if area >= _LEAST_PIXELS and _HALF[0] <= area / whole <= _HALF[1] else None
