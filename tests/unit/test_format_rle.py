"""Run-length codes of several tools are decoded as documented, and ours are those of COCO's library."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.extra.numpy as npst
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from mask_files import Bits, brush, brush_of, cvat_runs, drawn
from maskscore.formats import encode_brush, read_masks
from maskscore.formats.label_studio_brush import decode_brush
from maskscore.masks import encode_mask
from maskscore.masks.arrays import rle_in_box, rles_of_labels

sides = st.tuples(st.integers(1, 12), st.integers(1, 12))
masks = npst.arrays(np.bool_, sides)


@st.composite
def packed(draw: st.DrawFn) -> tuple[Bits, list[int]]:
    """Return a mask and its brush: any words, any cut into blocks, any widths of the lengths."""
    height, width = draw(sides)
    total = height * width * 4
    widths = draw(st.lists(st.integers(1, 16), min_size=4, max_size=4))
    words: list[int] = []
    blocks: list[tuple[bool, int]] = []
    while len(words) < total:
        length = draw(st.integers(1, min(total - len(words), 1 << max(widths))))
        repeated = draw(st.booleans())
        words += (
            [draw(st.sampled_from([0, 1, 255]))] * length
            if repeated
            else draw(st.lists(st.integers(0, 255), min_size=length, max_size=length))
        )
        blocks.append((repeated, length))
    alpha = np.array(words, np.uint8).reshape(height, width, 4)[..., 3]
    return alpha > 0, brush(words, blocks, widths)


@given(packed())
def test_a_brush_is_read_whatever_its_blocks(case: tuple[Bits, list[int]]) -> None:
    mask, encoded = case
    np.testing.assert_array_equal(decode_brush(bytes(encoded), *mask.shape), mask)


@given(masks)
def test_a_brush_of_long_runs_is_read(mask: Bits) -> None:
    np.testing.assert_array_equal(decode_brush(bytes(brush_of(mask)), *mask.shape), mask)


@given(
    npst.arrays(
        np.bool_, st.tuples(st.integers(1, 300), st.integers(1, 300)), elements=st.booleans(), fill=st.booleans()
    )
)
def test_a_brush_is_written_as_it_is_read(mask: Bits) -> None:
    np.testing.assert_array_equal(decode_brush(bytes(encode_brush(mask)), *mask.shape), mask)


def test_a_brush_that_is_published() -> None:
    """The beginning of one of https://huggingface.co/datasets/alkzar90/cell_benchmark, of 2527 x 3332 pixels."""
    header = bytes([2, 1, 233, 240, 57, 27, 255, 255, 255, 0, 255, 255, 224, 31, 255, 252, 3, 255, 255, 128, 127, 255])
    total = int.from_bytes(header[:4], "big")
    assert total == 3332 * 2527 * 4
    # 5 + 16 bits of header follow, then blocks of 65,536 zeros each, 27 bits long.
    bits = "".join(f"{byte:08b}" for byte in header[:7])
    blocks, rest = divmod(total, 1 << 16)
    bits = bits[:53] + ("1" + "11" + "1" * 16 + "0" * 8) * blocks + "1" + "11" + f"{rest - 1:016b}" + "0" * 8
    bits += "0" * (-len(bits) % 8)
    whole = bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8))
    assert whole[: len(header)] == header
    assert not decode_brush(whole, 2527, 3332).any()


@given(masks.filter(lambda mask: bool(mask.any())), st.integers(0, 3), st.integers(0, 3))
def test_runs_of_cvat_are_read(mask: Bits, more: int, before: int) -> None:
    image = np.pad(mask, ((before, more), (more, before)))
    runs, left, top, width, height = cvat_runs(image)
    xml = (
        f'<annotations><image id="0" name="a" width="{image.shape[1]}" height="{image.shape[0]}"><mask label="x" '
        f'occluded="0" rle="{runs}" left="{left}" top="{top}" width="{width}" height="{height}"/></image></annotations>'
    )
    (found,) = read_masks(xml.encode())
    np.testing.assert_array_equal(drawn(found), image)


@given(masks)
def test_a_masks_rle_is_that_of_cocos_library(mask: Bits) -> None:
    expected = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    assert encode_mask(mask).counts == expected


@given(masks, st.integers(0, 3), st.integers(0, 3))
def test_a_box_lies_where_it_is_said(mask: Bits, left: int, top: int) -> None:
    image = np.zeros((mask.shape[0] + top + 1, mask.shape[1] + left + 2), np.bool_)
    image[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    assert rle_in_box(mask, left, top, image.shape) == encode_mask(image)


@given(npst.arrays(np.int32, sides, elements=st.integers(0, 5)))
def test_all_labels_of_a_map_are_found_at_once(labels: Any) -> None:
    found = dict(rles_of_labels(labels))
    assert list(found) == sorted({int(value) for value in labels.ravel()} - {0})
    assert all(rle == encode_mask(labels == value) for value, rle in found.items())


@given(npst.arrays(np.bool_, st.tuples(st.just(1), st.integers(1, 4))), st.integers(1, 4000))
def test_runs_of_many_digits_are_those_of_cocos_library(row: Bits, times: int) -> None:
    mask = np.repeat(row, times, axis=0)
    assert encode_mask(mask).counts == coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


def test_a_brushs_json_is_bytes() -> None:
    assert json.loads(json.dumps(brush_of(np.ones((2, 2), np.bool_))))[:4] == [0, 0, 0, 16]
