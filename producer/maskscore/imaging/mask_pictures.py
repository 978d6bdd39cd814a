"""A component's mask inside its box, as a Pillow picture, to the bit as the worker saw it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageChops

from maskscore.masks import connected_parts, counts_of, drawable, outline_steps, polygon_runs, run_lengths, spans_of
from maskscore.schema import RLE, Box, Component, Mask

__all__ = ["component_bits"]

# A few seconds of drawing for one mask. What anyone draws stays a hundred times below.
_MOST_STEPS: Final = 2_000_000
_MOST_PIXELS: Final = 3 * 10**9


def component_bits(mask: Mask, component: Component, box: Box, size: tuple[int, int]) -> Image.Image:
    """Return the component's mask as an ``L`` picture of its ``box``, 255 inside and 0 outside.

    ``size`` is the image's ``(width, height)`` in pixels. Raises ValueError when the mask is not of this image, does
    not hold such a component, or is made of polygons that would take too long to draw.
    """
    _check(mask, size)
    if component.part is None:
        return _inside_box(mask, box, size)
    # The box holds all of the component, but may hold bits of its neighbours.
    width, height = size
    parts = connected_parts(spans_of(mask, height, width), height)
    part = parts[component.part] if component.part < len(parts) else None
    if part is None or (part.box, part.area) != (box, component.area):
        raise ValueError("the mask does not hold this component")
    return _picture(counts_of(part.spans, width * height), box, size)


def _check(mask: Mask, size: tuple[int, int]) -> None:
    width, height = size
    if isinstance(mask.segmentation, RLE):
        if mask.segmentation.size != (height, width):
            raise ValueError("the mask is of another size than the image")
        return
    steps = sum(map(outline_steps, mask.segmentation))
    if steps > _MOST_STEPS or len(mask.segmentation) * width * height > _MOST_PIXELS:
        raise ValueError("the mask's polygons take too long to draw")


def _inside_box(mask: Mask, box: Box, size: tuple[int, int]) -> Image.Image:
    width, height = size
    if isinstance(mask.segmentation, RLE):
        return _picture(run_lengths(mask.segmentation), box, size)
    if mask.polygon_convention == "opencv":
        return _picture(counts_of(spans_of(mask, height, width), width * height), box, size)
    picture = Image.new("L", box[2:])
    for polygon in drawable(mask.segmentation):
        picture = ImageChops.lighter(picture, _picture(polygon_runs(polygon, height, width), box, size))
    return picture


def _picture(runs: Sequence[int], box: Box, size: tuple[int, int]) -> Image.Image:
    if min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
        raise ValueError("the runs do not add up to the image's pixels")
    pixels = b"".join((b"\xff" if index % 2 else b"\0") * run for index, run in enumerate(runs))
    x, y, width, height = box
    rows = size[1]
    # Columns lie one after the other: the box's are one piece, and read as rows they are the transpose.
    columns = Image.frombytes("L", (rows, width), pixels[x * rows : (x + width) * rows])
    return columns.crop((y, 0, y + height, width)).transpose(Image.Transpose.TRANSPOSE)
