"""Treatments: what becomes of the pixels inside and outside the mask, at full resolution. Pillow alone.

All but ``blur`` change every value by itself, so that two tables of 256 for each channel say all of them, exactly. The
worker's device path applies these tables, Pillow does here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from PIL import Image, ImageFilter

from maskscore.schema import Treatment, View

__all__ = ["FILL", "GAIN", "MEAN", "Tables", "blurred", "border_colour", "treat_picture", "treatment_tables"]

FILL: Final = 128
"""Grey that stands for "not part of the mask", and behind transparent pixels."""

GAIN: Final = 1.05
"""Factor for the pixels inside the mask, in the specification's treatments."""

MEAN: Final = (123, 117, 104)
"""CLIP's mean colour, (0.48145466, 0.4578275, 0.40821073) × 255 rounded: next to nothing after normalisation."""


# Standard deviations of a blur, in pixels, that a smaller picture shows as well.
_ENOUGH: Final = 8


@dataclass(frozen=True, slots=True)
class Tables:
    """768 bytes each: the new value of red, green and blue by the old one, a channel after the other."""

    inside: bytes
    outside: bytes


def treatment_tables(treatment: Treatment, alpha: float) -> Tables | None:
    """Return a treatment's tables; ``None`` for ``raw_crop``, which changes nothing.

    ``original``: outside 128, inside × 1.05. ``soft_mask``: outside v × (1 − alpha) + 128 × alpha, inside × 1.05.
    ``mean_fill``: outside :data:`MEAN`. Computed in double precision, clipped to 0 … 255, truncated. Raises ValueError
    for ``blur``, which looks at a pixel's neighbours.
    """
    if treatment == "raw_crop":
        return None
    if treatment == "mean_fill":
        return Tables(bytes(range(256)) * 3, b"".join(bytes([level]) * 256 for level in MEAN))
    inside = bytes(_uint8(value * GAIN) for value in range(256)) * 3
    if treatment == "original":
        return Tables(inside, bytes([FILL]) * 768)
    if treatment == "soft_mask":
        return Tables(inside, bytes(_uint8(value * (1 - alpha) + FILL * alpha) for value in range(256)) * 3)
    raise ValueError(f"{treatment} is not made of tables")


def treat_picture(crop: Image.Image, inside: Image.Image, view: View, *, longer_side: int) -> Image.Image:
    """Return the treated crop, or the crop itself for ``raw_crop``.

    ``crop`` is RGB, ``inside`` a mask of its size (mode ``1``, or ``L`` with 0 and 255). ``blur`` puts the crop as it
    is over the crop :func:`blurred` with ``view.blur`` × ``longer_side``, the longer side of the mask's box in pixels.
    ``mean_fill`` puts it over :data:`MEAN`.
    """
    if view.treatment == "raw_crop":
        return crop
    if view.treatment == "blur":
        treated = blurred(crop, view.blur * longer_side)
        treated.paste(crop, mask=inside)
        return treated
    within, outside = _pillow_tables(view.treatment, view.alpha)
    treated = Image.new("RGB", crop.size, outside) if isinstance(outside, tuple) else crop.point(outside)
    treated.paste(crop.point(within) if within else crop, mask=inside)
    return treated


def blurred(picture: Image.Image, sigma: float) -> Image.Image:
    """Return the picture after a Gaussian with a standard deviation of ``sigma`` pixels, its edges continued.

    It is Pillow's ``GaussianBlur``, three box filters one after the other. Where ``sigma`` is 16 or more, the picture
    is made k = ⌊sigma / 8⌋ times smaller before it (means of k × k pixels) and as large again after it (bilinear): what
    is lost is finer than the blur lets through, and a large crop takes a fraction of the time.
    """
    smaller = max(1, int(sigma / _ENOUGH))
    if smaller == 1:
        return picture.filter(ImageFilter.GaussianBlur(sigma))
    reduced = picture.reduce(smaller).filter(ImageFilter.GaussianBlur(sigma / smaller))
    # What the last, incomplete pixels stand for ends where the picture ends.
    whole = (0, 0, picture.width / smaller, picture.height / smaller)
    return reduced.resize(picture.size, Image.Resampling.BILINEAR, box=whole)


def border_colour(treatment: Treatment) -> tuple[int, int, int]:
    """Return what a square is filled up with where there is no image: the treatment's own grey, else :data:`MEAN`."""
    return (FILL, FILL, FILL) if treatment in ("original", "soft_mask") else MEAN


@lru_cache(maxsize=64)
def _pillow_tables(treatment: Treatment, alpha: float) -> tuple[list[int] | None, list[int] | tuple[int, int, int]]:
    """Return Pillow's form of the tables; no first one where it changes nothing, a colour where the second is one."""
    tables = treatment_tables(treatment, alpha)
    assert tables is not None
    within = None if tables.inside == bytes(range(256)) * 3 else list(tables.inside)
    red, green, blue = (tables.outside[start : start + 256] for start in (0, 256, 512))
    if all(len(set(channel)) == 1 for channel in (red, green, blue)):
        return within, (red[0], green[0], blue[0])
    return within, list(tables.outside)


def _uint8(value: float) -> int:
    return int(min(255.0, max(0.0, value)))
