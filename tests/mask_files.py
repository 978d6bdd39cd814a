"""Files of masks as other tools write them, made from their documentation, and masks read back by COCO's library."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco

from in_memory_files import image_file
from maskscore.formats import UnreadableMask
from maskscore.masks import encode_mask
from maskscore.schema.job import RLE, Mask

Bits = npt.NDArray[np.bool_]


def drawn(mask: Mask | UnreadableMask, size: tuple[int, int] | None = None) -> Bits:
    """Return the mask's pixels, ``(H, W)``, by COCO's own library; polygons need the ``size``."""
    assert isinstance(mask, Mask), mask
    if isinstance(mask.segmentation, RLE):
        rle: Any = {"size": list(mask.segmentation.size), "counts": mask.segmentation.counts}
        if isinstance(rle["counts"], list):
            rle = coco.frPyObjects(rle, *rle["size"])
        return np.asarray(coco.decode(rle), np.bool_)
    assert size is not None
    return np.asarray(coco.decode(coco.merge(coco.frPyObjects(mask.segmentation, *size))), np.bool_)


def assert_drawn(
    masks: Iterable[Mask | UnreadableMask], expected: Iterable[npt.NDArray[Any]], size: tuple[int, int] | None = None
) -> None:
    """Each mask has the expected pixels, and there are as many."""
    for mask, bits in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(drawn(mask, size), bits)


def rle(mask: Bits) -> dict[str, Any]:
    """Return COCO's compressed RLE of a mask, as it stands in JSON."""
    return encode_mask(mask).model_dump(mode="json")


def as_json(document: Any) -> bytes:
    """Return a document as the bytes of a JSON file."""
    return json.dumps(document).encode()


def shapes(height: int = 40, width: int = 60) -> list[Bits]:
    """Return three masks: a disc, a mask of two parts that reaches the image's edges, and a single pixel."""
    rows, columns = np.mgrid[:height, :width]
    disc = (rows - 15) ** 2 + (columns - 22) ** 2 < 90
    parts = ((rows < 5) & (columns > 40)) | ((rows > 30) & (columns < 9))
    pixel = (rows == 20) & (columns == 50)
    return [disc, parts, pixel]


def label_map(masks: Sequence[Bits], values: Sequence[int], dtype: Any = np.uint8) -> npt.NDArray[Any]:
    """Return an ``(H, W)`` map of the values; later masks lie on top."""
    labels = np.zeros(masks[0].shape, dtype)
    for mask, value in zip(masks, values, strict=True):
        labels[mask] = value
    return labels


def png(pixels: npt.NDArray[Any], palette: bool = False) -> bytes:
    """Return a PNG of the array: uint8 is grey (or a palette's indices), uint16 grey of 16 bits, bool of one bit."""
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette([value for index in range(256) for value in (index, 255 - index, (7 * index) % 256)])
    return image_file(image)


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG whose header states a size, with the pixels of a far smaller one."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def brush(
    words: Sequence[int], blocks: Sequence[tuple[bool, int]] | None = None, widths: Sequence[int] = (3, 4, 8, 16)
) -> list[int]:
    """Return thi.ng/rle-pack's encoding of bytes, as Label Studio keeps it: a list of bytes.

    ``blocks`` says how the words are cut: ``(repeated, length)`` each. Without it, equal neighbours make a run.
    Source: https://github.com/thi-ng/umbrella, packages/rle-pack, README ("Encoding format").
    """
    bits = [f"{len(words):032b}", f"{8 - 1:05b}", *(f"{width - 1:04b}" for width in widths)]
    position = 0
    for repeated, length in blocks if blocks is not None else _runs(words, 1 << max(widths)):
        chosen = min((width, slot) for slot, width in enumerate(widths) if length <= 1 << width)
        bits += ["1" if repeated else "0", f"{chosen[1]:02b}", f"{length - 1:0{chosen[0]}b}"]
        bits += [f"{word:08b}" for word in words[position : position + (1 if repeated else length)]]
        position += length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[start : start + 8], 2) for start in range(0, len(text), 8)]


def _runs(words: Sequence[int], longest: int) -> list[tuple[bool, int]]:
    blocks: list[tuple[bool, int]] = []
    start = 0
    for position in range(1, len(words) + 1):
        if position == len(words) or words[position] != words[start] or position - start == longest:
            blocks.append((True, position - start))
            start = position
    return blocks


def brush_of(mask: Bits, alpha: int = 255) -> list[int]:
    """Return a brush as Label Studio's editor saves it: the mask in all four channels."""
    return brush(np.repeat(mask.ravel().astype(np.uint8) * alpha, 4).tolist())


def cvat_runs(mask: Bits) -> tuple[str, int, int, int, int]:
    """Return ``rle, left, top, width, height``: CVAT's runs, row by row inside the box, the first of zeros."""
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    runs, value = [0], False
    for bit in mask[top:bottom, left:right].ravel().tolist():
        if bit != value:
            runs.append(0)
            value = bit
        runs[-1] += 1
    return ", ".join(map(str, runs)), int(left), int(top), int(right - left), int(bottom - top)
