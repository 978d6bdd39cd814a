"""The report's pictures, by Pillow alone: the photo, a translucent layer per mask, the crops."""

from __future__ import annotations

import base64
import io

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from maskscore.job import RLE, Mask, ScoringOptions
from maskscore.masks import counts_from_text
from maskscore.result import Box
from maskscore.treatments import FILL, surviving_part, treatment_tables

__all__ = ["crop_picture", "data_uri", "layer", "mask_picture", "open_photo"]


def open_photo(data: bytes, *, turned: bool) -> Image.Image:
    """Return the photo as the worker saw it: RGB, ``turned`` as its EXIF tag says, transparency on grey."""
    image = Image.open(io.BytesIO(data))
    image.load()
    photo = ImageOps.exif_transpose(image) if turned else image
    if photo.mode.startswith("I"):
        return photo.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if photo.has_transparency_data:
        rgba = photo.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (FILL, FILL, FILL, 255)), rgba).convert("RGB")
    return photo.convert("RGB")


def mask_picture(mask: Mask, size: tuple[int, int]) -> Image.Image:
    """Return the mask as an ``L`` picture of ``size`` (width, height), 255 inside.

    Polygons are drawn by Pillow, whose edges may differ from COCO's by a pixel. Raises ValueError for a mask that
    cannot be read or is of another size.
    """
    if isinstance(mask.segmentation, RLE):
        height, width = mask.segmentation.size
        counts = mask.segmentation.counts
        runs = counts_from_text(counts) if isinstance(counts, str) else counts
        pixels = b"".join((b"\xff" if index % 2 else b"\0") * run for index, run in enumerate(runs))
        if (width, height) != size or len(pixels) != width * height:
            raise ValueError("the mask is of another size than the image")
        return Image.frombytes("L", (height, width), pixels).transpose(Image.Transpose.TRANSPOSE)
    picture = Image.new("L", size)
    draw = ImageDraw.Draw(picture)
    for part in mask.segmentation:
        draw.polygon(part, fill=255)
    return picture


def layer(mask: Image.Image, box: Box, colour: str, scale: float) -> Image.Image:
    """Return a mask's translucent layer, cropped to its box and scaled to the page's photo."""
    x, y, width, height = box
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    inside = mask.crop((x, y, x + width, y + height)).resize(size, Image.Resampling.BOX)
    framed = ImageOps.expand(inside, border=2)
    eroded = framed.filter(ImageFilter.MinFilter(3)).crop((2, 2, 2 + size[0], 2 + size[1]))
    outline = ImageChops.subtract(inside, eroded)
    alpha = ImageChops.lighter(inside.point(lambda value: value * 0.38), outline)
    coloured = Image.new("RGB", size, colour)
    coloured.putalpha(alpha)
    return coloured.quantize(64, method=Image.Quantize.FASTOCTREE)


def crop_picture(photo: Image.Image, mask: Image.Image, box: Box, options: ScoringOptions, size: int) -> Image.Image:
    """Return the ``size`` × ``size`` crop that the model saw, before it was normalised."""
    x, y, width, height = box
    area = (x, y, x + width, y + height)
    crop = photo.crop(area)
    tables = treatment_tables(options.treatment, options.alpha)
    if tables is not None:
        inside, outside = (crop.point(list(table) * 3) for table in (tables.inside, tables.outside))
        crop = Image.composite(inside, outside, mask.crop(area))
    return crop.resize((size, size), Image.Resampling.BICUBIC, box=surviving_part(width, height, size))


def data_uri(picture: Image.Image, format_: str, **options: int | bool) -> str:
    """Return the picture as a ``data:`` URI."""
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return f"data:image/{format_.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
