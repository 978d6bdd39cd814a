"""Scenes that draw themselves from a seed: coloured shapes before textured backgrounds, with exact masks and labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

__all__ = ["BACKGROUNDS", "COLOURS", "FRAGMENT", "SHAPES", "Scene", "SceneMask", "draw_scene"]

Kind = Literal["object", "background", "fragment"]
Bits = npt.NDArray[np.bool_]

COLOURS: Final = {
    "red": (205, 35, 40),
    "orange": (240, 140, 25),
    "purple": (130, 50, 170),
    "white": (236, 236, 240),
    "black": (30, 28, 34),
}
SHAPES: Final = ("circle", "triangle", "star", "ring", "cross")
BACKGROUNDS: Final = ("sky", "grass", "sand", "water")
FRAGMENT: Final = "a part of a shape"

_PLACES = 60


@dataclass(frozen=True, slots=True)
class SceneMask:
    """One mask of a scene: ``mask`` is ``(H, W)`` bool, ``label`` the prompt of the demo set that is true of it."""

    id: str
    kind: Kind
    label: str
    mask: Bits


@dataclass(frozen=True, slots=True)
class Scene:
    """``image`` is ``(H, W, 3)`` uint8 RGB."""

    image: npt.NDArray[np.uint8]
    masks: list[SceneMask]


def draw_scene(seed: int, size: tuple[int, int] | None = None) -> Scene:
    """Draw the scene of a seed, ``size`` (height, width) pixels or one of its own between 240 and 480.

    Objects are whole shapes that do not touch each other; backgrounds are what is visible of one, as a whole and as a
    patch; a fragment is the left or right half of one of the shapes.
    """
    rng = np.random.default_rng(seed)
    height, width = size or (int(rng.integers(240, 400)), int(rng.integers(300, 480)))
    image, grounds = _draw_grounds(rng, height, width)
    shapes = _draw_shapes(rng, image)
    free = ~np.logical_or.reduce([bits for _, bits in shapes]) if shapes else np.ones((height, width), bool)
    masks: list[tuple[Kind, str, Bits]] = [("object", label, bits) for label, bits in shapes]
    for name, bits in grounds.items():
        masks.append(("background", name, bits & free))
        patch = _patch(rng, bits & free)
        if patch is not None:
            masks.append(("background", name, patch))
    for index in rng.permutation(len(shapes))[:2]:
        masks.append(("fragment", FRAGMENT, _half(rng, shapes[index][1])))
    order = rng.permutation(len(masks))
    named = []
    for number, index in enumerate(order, 1):
        kind, label, bits = masks[index]
        name = "part" if kind == "fragment" else label.split(" ", 1)[-1].replace(" ", "-")
        named.append(SceneMask(f"{number}-{name}", kind, label, bits))
    return Scene(image, named)


def _draw_grounds(rng: np.random.Generator, height: int, width: int) -> tuple[npt.NDArray[np.uint8], dict[str, Bits]]:
    """One background, or one above another with a wavy border."""
    names = list(rng.permutation(BACKGROUNDS)[: int(rng.integers(1, 3))])
    if "sky" in names:
        names.sort(key=lambda name: name != "sky")
    border = np.zeros(width)
    if len(names) == 2:
        wave = np.sin(np.arange(width) / rng.uniform(20, 60) + rng.uniform(0, 6)) * rng.uniform(2, 8)
        border = height * rng.uniform(0.35, 0.65) + wave
    lower = np.arange(height)[:, None] >= border[None, :]
    regions = {names[-1]: lower} if len(names) == 1 else {names[0]: ~lower, names[1]: lower}
    image = np.zeros((height, width, 3), np.uint8)
    for name, bits in regions.items():
        image[bits] = _texture(rng, str(name), height, width)[bits]
    return image, {str(name): bits for name, bits in regions.items()}


def _texture(rng: np.random.Generator, name: str, height: int, width: int) -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    noise = rng.standard_normal((height, width)).astype(np.float32)
    if name == "sky":
        colour, grain = (120, 175, 235), 40 * rows / height + 2 * noise
        colour_grain = np.stack([grain * 1.2, grain, grain * 0.3], axis=-1)
    elif name == "grass":
        blades = np.sin(columns / 1.5 + 3 * noise) * 22
        colour, colour_grain = (70, 140, 50), np.stack([blades * 0.6, blades, blades * 0.4], axis=-1)
    elif name == "sand":
        colour, colour_grain = (215, 190, 140), np.repeat(noise[..., None] * 12, 3, axis=-1)
    else:
        ripples = np.sin(rows / rng.uniform(2.5, 4) + 2 * np.sin(columns / rng.uniform(14, 22))) * 24
        colour, colour_grain = (25, 80, 130), np.stack([ripples * 0.5, ripples, ripples], axis=-1)
    tint = rng.uniform(-8, 8, 3)
    texture: npt.NDArray[np.uint8] = np.clip(np.array(colour) + tint + colour_grain, 0, 255).astype(np.uint8)
    return texture


def _draw_shapes(rng: np.random.Generator, image: npt.NDArray[np.uint8]) -> list[tuple[str, Bits]]:
    """Draw three to six shapes that keep a few pixels apart, some of them small, some at the image's edge."""
    height, width = image.shape[:2]
    taken = np.zeros((height, width), bool)
    shapes: list[tuple[str, Bits]] = []
    wanted = int(rng.integers(3, 7))
    for _ in range(_PLACES):
        if len(shapes) == wanted:
            break
        side = int(rng.integers(24, 120))
        left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
        if rng.random() < 0.1:
            left = 0
        around = (slice(max(0, top - 4), top + side + 4), slice(max(0, left - 4), left + side + 4))
        if taken[around].any():
            continue
        taken[around] = True
        colour, shape = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))
        bits = _shape(shape, left, top, side, height, width)
        shade = np.linspace(8, -8, height)[:, None, None] + rng.standard_normal((height, width, 1)) * 3
        image[bits] = np.clip(np.array(COLOURS[colour]) + shade, 0, 255).astype(np.uint8)[bits]
        article = "an" if colour[0] in "aeiou" else "a"
        shapes.append((f"{article} {colour} {shape}", bits))
    return shapes


def _shape(name: str, left: int, top: int, side: int, height: int, width: int) -> Bits:
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    right, bottom, middle_x, middle_y = left + side - 1, top + side - 1, left + side / 2, top + side / 2
    if name in ("circle", "ring"):
        draw.ellipse((left, top, right, bottom), fill=1)
        if name == "ring":
            hole = side * 0.24
            draw.ellipse((left + hole, top + hole, right - hole, bottom - hole), fill=0)
    elif name == "triangle":
        draw.polygon([(middle_x, top), (right, bottom), (left, bottom)], fill=1)
    elif name == "star":
        points = []
        for corner in range(10):
            radius, angle = side / 2 * (0.42 if corner % 2 else 1), math.pi * (corner / 5 - 0.5)
            points.append((middle_x + radius * math.cos(angle), middle_y + radius * math.sin(angle)))
        draw.polygon(points, fill=1)
    else:
        arm = side * 0.34
        draw.rectangle((left + arm, top, right - arm, bottom), fill=1)
        draw.rectangle((left, top + arm, right, bottom - arm), fill=1)
    return np.asarray(canvas)


def _half(rng: np.random.Generator, bits: Bits) -> Bits:
    """The left or right half of a shape, cut somewhat askew."""
    rows, columns = np.nonzero(bits)
    slope = rng.uniform(-0.3, 0.3)
    across = (columns - columns.mean()) + slope * (rows - rows.mean())
    keep = across < 0 if rng.random() < 0.5 else across >= 0
    half = np.zeros_like(bits)
    half[rows[keep], columns[keep]] = True
    return half


def _patch(rng: np.random.Generator, free: Bits) -> Bits | None:
    """A rectangle inside a background, as a segmenter finds one; none where there is no room."""
    height, width = free.shape
    for _ in range(_PLACES):
        tall, wide = int(rng.integers(24, 90)), int(rng.integers(24, 90))
        top, left = int(rng.integers(0, max(1, height - tall))), int(rng.integers(0, max(1, width - wide)))
        window = (slice(top, top + tall), slice(left, left + wide))
        if free[window].all():
            patch = np.zeros_like(free)
            patch[window] = True
            return patch
    return None
