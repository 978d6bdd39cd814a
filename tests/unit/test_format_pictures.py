"""Masks in TIFF, BMP, GIF and JPEG are read as those in PNG; the value 255 can mean "ignore"."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from in_memory_files import image_file
from mask_files import assert_drawn, drawn, label_map, png, shapes
from maskscore.formats import MasksDocumentError, UnreadableMask, detect, read_masks
from maskscore.schema.job import Mask

MASKS = shapes()
DISC = MASKS[0]


def labels(dtype: Any, *values: int) -> npt.NDArray[Any]:
    return label_map(MASKS, values, dtype)


def in_palette(pixels: npt.NDArray[np.uint8], *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(pixels)
    image.putpalette([value for colour in colours for value in colour])
    return image


LABELS = {
    "TIFF of 8 bits": image_file(labels(np.uint8, 1, 2, 3), "TIFF"),
    "TIFF of 16 bits, LZW": image_file(labels(np.uint16, 1, 300, 65535), "TIFF", compression="tiff_lzw"),
    "TIFF of 32 bits": image_file(labels(np.int32, 1, 2, 100_000), "TIFF"),
    "TIFF of floats": image_file(labels(np.float32, 1, 2, 3), "TIFF", compression="tiff_adobe_deflate"),
    "BMP": image_file(labels(np.uint8, 1, 2, 3), "BMP"),
    "GIF": image_file(in_palette(labels(np.uint8, 1, 2, 3), (0, 0, 0), (9, 9, 200), (0, 200, 0), (200, 0, 0)), "GIF"),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_label_map_is_read_as_its_png_is(tmp_path: Path, name: str) -> None:
    data = LABELS[name]
    (tmp_path / "a").write_bytes(data)
    assert detect(data).name == detect(tmp_path / "a").name == "png-labels"
    masks = read_masks(data)
    assert_drawn(masks, MASKS)
    assert masks == read_masks(data, format="png-labels")


def test_what_is_below_zero_in_a_tiff_is_background() -> None:
    pixels = np.select([DISC, MASKS[1]], [7, 0], -1).astype(np.float32)
    for data in (image_file(pixels, "TIFF"), image_file(pixels.astype(np.int32), "TIFF")):
        found = {mask.id: drawn(mask) for mask in read_masks(data)}
        assert found.keys() == {"0", "7"}
        np.testing.assert_array_equal(found["0"], MASKS[1])


BINARY = {
    "TIFF": image_file(DISC, "TIFF", compression="group4"),
    "TIFF of grey": image_file(DISC.astype(np.uint8) * 255, "TIFF"),
    "BMP of one bit": image_file(DISC, "BMP"),
    "BMP of colours": image_file(np.repeat(DISC[..., None].astype(np.uint8) * 255, 3, axis=2), "BMP"),
    "GIF": image_file(DISC.astype(np.uint8) * 255, "GIF"),
    "GIF with white first": image_file(
        in_palette(np.where(DISC, 0, 1).astype(np.uint8), (255, 255, 255), (0, 0, 0)), "GIF", optimize=False
    ),
    "JPEG": image_file(DISC.astype(np.uint8) * 255, "JPEG", quality=90),
    "JPEG of colours": image_file(np.repeat(DISC[..., None].astype(np.uint8) * 255, 3, axis=2), "JPEG", quality=95),
}


@pytest.mark.parametrize("name", BINARY)
def test_one_mask_is_read_as_its_png_is(name: str) -> None:
    data = BINARY[name]
    assert detect(data).name == "png-binary"
    (mask,) = read_masks(data)
    np.testing.assert_array_equal(drawn(mask), DISC)
    assert [mask] == read_masks(data, format="png-binary")


def test_a_palettes_black_is_background_wherever_it_stands() -> None:
    numbers = np.select([MASKS[1], DISC], [0, 2], 1).astype(np.uint8)
    data = image_file(in_palette(numbers, (0, 200, 0), (0, 0, 0), (200, 0, 0)), "GIF", optimize=False)
    found = {mask.id: drawn(mask) for mask in read_masks(data)}
    assert found.keys() == {"2", "256"}
    np.testing.assert_array_equal(found["256"], MASKS[1])


NOISE = np.random.default_rng(1).integers(0, 256, (40, 60)).astype(np.uint8)


@pytest.mark.parametrize(
    ("data", "format_", "words"),
    [
        (image_file(labels(np.uint8, 1, 2, 3), "JPEG"), None, "not of black and white"),
        (image_file(NOISE, "JPEG"), None, "not of black and white"),
        (image_file(DISC.astype(np.uint8) * 255, "JPEG"), "png-labels", "changes the numbers of a label map"),
        (image_file(DISC.astype(np.uint8) * 255, "JPEG"), "coco-panoptic", "changes the numbers of a label map"),
        (image_file(NOISE / np.float32(7), "TIFF"), None, "not whole"),
        (image_file(NOISE, "TIFF"), None, "as a photograph does"),
        (image_file(DISC, "TIFF", save_all=True, append_images=[Image.fromarray(DISC)]), None, "several pages"),
        (image_file(DISC, "GIF", save_all=True, append_images=[Image.fromarray(MASKS[1])]), None, "several pages"),
        (image_file(DISC, "BMP")[:50], None, "cannot be decoded"),
        (b"\xff\xd8" + b"\xff\xda\x00\x02" * 101, None, "more than 100 scans"),
        (image_file(DISC, "BMP"), "npz", "they are a TIFF, BMP, GIF or JPEG"),
    ],
)
def test_a_picture_that_is_no_mask_says_why(data: bytes, format_: str | None, words: str) -> None:
    with pytest.raises(MasksDocumentError, match=words):
        read_masks(data, format=format_)


def test_a_jpeg_without_anything_has_no_masks() -> None:
    assert read_masks(image_file(np.zeros((40, 60), np.uint8), "JPEG")) == []


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "GIF", "JPEG"])
def test_the_size_is_checked_before_anything_is_unpacked(kind: str) -> None:
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    data = image_file(np.zeros((3000, 3000), np.uint8), kind, **options)
    tracemalloc.start()
    try:
        with pytest.raises(MasksDocumentError, match="at most 1,000,000 are unpacked"):
            read_masks(data, max_pixels=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# Pillow's own, of damaged tags.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", [*LABELS, *BINARY])
@settings(max_examples=40)
@given(data=st.data())
def test_damaged_pictures_are_masks_or_a_refusal(name: str, data: st.DataObject) -> None:
    good = {**LABELS, **BINARY}[name]
    damaged = bytearray(good[: data.draw(st.integers(8, len(good)), "cut")])
    for place in data.draw(st.lists(st.integers(4, len(damaged) - 1), max_size=4), "places"):
        damaged[place] = data.draw(st.integers(0, 255), "byte")
    with contextlib.suppress(MasksDocumentError):
        assert all(isinstance(mask, Mask | UnreadableMask) for mask in read_masks(bytes(damaged), max_pixels=1_000_000))


def voc(colour: tuple[int, int, int]) -> bytes:
    pixels = labels(np.uint8, 1, 15, 20)
    pixels[10, :30] = 255
    image = Image.fromarray(pixels)
    image.putpalette([value for index in range(255) for value in (index, 0, 255 - index)] + list(colour))
    return image_file(image, "PNG")


def test_the_border_of_pascal_voc_is_no_mask() -> None:
    masks = read_masks(voc((224, 224, 192)))
    assert [mask.id for mask in masks] == ["1", "15", "20"]
    assert not drawn(masks[0])[10, :30].any()


def test_255_beside_small_labels_is_left_out_and_said() -> None:
    grey = labels(np.uint8, 1, 15, 20)
    grey[10, :30] = 255
    for data in (voc((1, 2, 3)), png(grey), image_file(grey, "TIFF")):
        masks = read_masks(data)
        assert [mask.id for mask in masks] == ["1", "15", "20", "255"]
        assert isinstance(masks[-1], UnreadableMask)
        assert "ignore" in masks[-1].message


@pytest.mark.parametrize("values", [(253, 254, 255), (100, 200, 255), (85, 170, 255), (1, 240, 255)])
def test_255_among_large_values_is_a_mask(values: tuple[int, int, int]) -> None:
    masks = read_masks(png(labels(np.uint8, *values)), format="png-labels")
    assert [mask.id for mask in masks] == [str(value) for value in values]
    assert all(isinstance(mask, Mask) for mask in masks)
    sixteen = read_masks(png(labels(np.uint16, 1, 2, 255)))
    assert [mask.id for mask in sixteen] == ["1", "2", "255"]
